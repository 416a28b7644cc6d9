// Made from the JSON Schemas by generate.js.

export type ConnectedIdentifier = string;
export type ConnectedDisplayName = string | null;
export type ConnectedSecret = string | null;
/**
 * Seconds. Null, 0 and absent: the token does not expire, or its end is not known.
 */
export type ConnectedLifetime = number | string | null;

/**
 * What a company's backend publishes after Mesh Link's onIntegrationConnected: as plain JSON, or as the data of a CloudEvents 1.0 structured message. Unknown fields are passed over; what does not fit here is left out as far as the rest can be used. Or sealed: an object with nothing but a JWE around all that.
 */
export interface Connected {
  /**
   * The company's own id of the user: at most 300 characters, no control or formatting characters.
   */
  userId: string;
  /**
   * When the tokens were obtained; lifetimes count from it. Without it the CloudEvents time counts, and without that the time at which the message was stored.
   */
  connectedAt?: string | null;
  /**
   * The publisher's own, to be found again with the grant in events, replies and lists. Not secret.
   */
  labels?: {
    [k: string]: string | null;
  } | null;
  /**
   * What goes along with each refresh as Mesh's metadata, where an institution needs some. Sealed with the tokens.
   */
  metadata?: {
    [k: string]: string | null;
  } | null;
  /**
   * Mesh Link's LinkPayload, verbatim; or the bare object of either form, as the iOS, Android and Flutter SDKs have it.
   */
  payload: {
    accessToken?: null | ConnectedAccessTokenPayload;
    delayedAuth?: null | ConnectedDelayedAuthPayload;
  };
}
/**
 * Access tokens that can be used at once.
 */
export interface ConnectedAccessTokenPayload {
  accountTokens: ConnectedAccountToken[];
  brokerType: ConnectedIdentifier;
  brokerName?: ConnectedDisplayName;
  expiresInSeconds?: ConnectedLifetime;
  refreshTokenExpiresInSeconds?: ConnectedLifetime;
}
/**
 * The tokens of one account: at least one of access token, refresh token and token id.
 */
export interface ConnectedAccountToken {
  account: {
    accountId: ConnectedIdentifier;
    accountName?: ConnectedDisplayName;
  };
  accessToken?: ConnectedSecret;
  refreshToken?: ConnectedSecret;
  tradeToken?: ConnectedSecret;
  /**
   * Mesh Managed Tokens: the handle of a token that Mesh keeps alive itself.
   */
  tokenId?: string | number | null;
}
/**
 * A refresh token only: the first refresh yields the access tokens.
 */
export interface ConnectedDelayedAuthPayload {
  refreshToken: string;
  brokerType: ConnectedIdentifier;
  brokerName?: ConnectedDisplayName;
  refreshTokenExpiresInSeconds?: ConnectedLifetime;
}

/**
 * One broker or account of a user, or everything of the user, is to be forgotten: as plain JSON, or as the data of a CloudEvents 1.0 structured message. Members that are unknown, null or empty are refused: they could have been meant to narrow it.
 */
export interface Disconnected {
  /**
   * The company's own id of the user: at most 300 characters, no control or formatting characters.
   */
  userId: string;
  /**
   * Narrows the disconnect to one broker; case makes no difference. Absent: all brokers.
   */
  brokerType?: string;
  /**
   * Narrows the disconnect to one account. Absent: all accounts.
   */
  accountId?: string;
  /**
   * true says that all of the user is meant. Without it brokerType or accountId is needed.
   */
  everything?: boolean;
  /**
   * When the user disconnected: what was connected later stays. Without it the CloudEvents time counts, and without that the time at which the message was stored.
   */
  disconnectedAt?: string;
}

/**
 * The data of a CloudEvents 1.0 structured message about an integration.connected message that changed nothing. It holds nothing of its payload. Fields and reasons may be added.
 */
export interface Rejected {
  userId: string;
  /**
   * Words may be added.
   */
  reason: ("invalid" | "unsealed" | "failed" | "older" | "repeated" | "nothing_to_keep") | string;
  /**
   * With invalid: which field breaks which rule, without a value.
   */
  problem?: string;
  /**
   * The id of the CloudEvents message that this answers, or else its Nats-Msg-Id. Absent: it had neither.
   */
  eventId?: string;
  /**
   * With sequence: what JetStream acknowledged the message with.
   */
  stream?: string;
  sequence?: number;
  /**
   * The dead letter, for an operator. Absent: there is none.
   */
  deadLetterId?: string;
}

/**
 * Answers a token request. accessTokens can be handed to Mesh Link's createLink as it is. It holds tokens in the clear, unless the request said sealTo: then it is an object with nothing but a JWE around all that. Fields and words may be added.
 */
export interface TokenReply {
  accessTokens: {
    accountId: string;
    accountName: string;
    accessToken: string;
    brokerType: string;
    brokerName: string;
    /**
     * Mesh Managed Tokens: the handle of a token that Mesh keeps alive itself.
     */
    tokenId?: string;
  }[];
  /**
   * For each of accessTokens, in the same order, its age and end.
   */
  expiries: {
    accountId: string;
    grantId: string;
    /**
     * Those of the grant, from the newest connect that brought some.
     */
    labels?: {
      [k: string]: string;
    };
    /**
     * That of the grant: it grows with every token set. Absent from workers of earlier releases.
     */
    version?: number;
    /**
     * When the token was obtained. Absent: not known.
     */
    obtainedAt?: string;
    /**
     * Absent: the token has no end, or none is known.
     */
    expiresAt?: string;
    refreshTokenExpiresAt?: string;
    /**
     * Present while refreshes of the grant fail.
     */
    refreshFailing?: {
      /**
       * When the first of them failed. Absent: not known.
       */
      since?: string;
      /**
       * Why the last of them failed. Words may be added.
       */
      reason: string;
    };
  }[];
  /**
   * For each token that the request named as refused, in the same order, what became of it.
   */
  refused?: {
    grantId: string;
    version: number;
    /**
     * Words may be added: take one that you do not know for unknown.
     */
    outcome: ("refreshed" | "replaced" | "too_soon" | "busy" | "not_refreshable" | "unknown") | string;
    /**
     * With too_soon and busy: reporting it again earlier does not help.
     */
    retryAfterSeconds?: number;
  }[];
  /**
   * Accounts that were asked for but have no token that could be given.
   */
  unavailable?: {
    accountId?: string;
    brokerType: string;
    grantId: string;
    /**
     * With busy: asking earlier does not help.
     */
    retryAfterSeconds?: number;
    /**
     * Words may be added: take one that you do not know for internal.
     */
    code: ("bad_request" | "forbidden" | "unknown_user" | "must_act" | "expired" | "internal" | "busy") | string;
    /**
     * Words may be added.
     */
    reason?:
      | (
          | "no_refresh_token"
          | "refresh_token_expired"
          | "mfa_required"
          | "rejected"
          | "not_found"
          | "bad_request"
          | "unavailable_for_legal_reasons"
          | "refresh_failing"
          | "not_covered"
          | "refresh_token_expiring"
          | "outcome_lost"
          | "unreadable"
          | "disconnected"
          | "replaced"
          | "moved"
          | "split"
          | "removed"
          | "removal_refused"
          | "removal_timed_out"
          | "no_access_token"
        )
      | string;
  }[];
}

/**
 * 32 bytes in base64url.
 */
export type TokenRequestCoordinate = string;

/**
 * Asks for the current tokens of one user, on that user's token.get subject. Members that are unknown, and those that narrow it if they are null or empty, are refused.
 */
export interface TokenRequest {
  /**
   * The company's own id of the user: at most 300 characters, no control or formatting characters.
   */
  userId: string;
  /**
   * Narrows the request to one broker; case makes no difference. Absent: all.
   */
  brokerType?: string;
  /**
   * Narrows the request to one account. Absent: all.
   */
  accountId?: string;
  /**
   * The least life that a token should have left; with less, and in the second half of its life, it is refreshed first. Absent or null: the worker's default.
   */
  minTTLSeconds?: number | null;
  /**
   * Tokens of earlier replies that were refused where they were used. One that is still the grant's version is refreshed first. Absent, null or empty: none.
   */
  refused?:
    | {
        /**
         * As in the reply's expiries.
         */
        grantId: string;
        /**
         * As in the reply's expiries.
         */
        version: number;
      }[]
    | null;
  /**
   * A public key of the requester, to which the reply is sealed. Absent or null: the reply is in the clear.
   */
  sealTo?: null | TokenRequestPublicKey;
}
export interface TokenRequestPublicKey {
  kty: "EC";
  crv: "P-256";
  x: TokenRequestCoordinate;
  y: TokenRequestCoordinate;
  kid?: string | null;
  use?: "enc" | "" | null;
  alg?: "ECDH-ES+A256KW" | "" | null;
}

/**
 * 32 bytes in base64url.
 */
export type TokenKeysCoordinate = string;

/**
 * The public keys that publishers seal to, as a JSON Web Key Set: the key to use first. Fields may be added.
 */
export interface TokenKeys {
  keys: {
    kty: "EC";
    crv: "P-256";
    x: TokenKeysCoordinate;
    y: TokenKeysCoordinate;
    /**
     * The thumbprint of the key (RFC 7638), in base64url.
     */
    kid: string;
    use: "enc";
    alg: "ECDH-ES+A256KW";
  }[];
}

/**
 * The data of a CloudEvents 1.0 structured message about a grant: accounts of one user at one broker that are refreshed together. It never holds a token. Fields and reasons may be added.
 */
export interface Lifecycle {
  userId: string;
  /**
   * Opaque; the same accounts connected again have the same id.
   */
  grantId: string;
  brokerType: string;
  brokerName?: string;
  /**
   * Those of the grant that the event is true of. Empty while they are not known yet.
   */
  accounts: {
    accountId: string;
    accountName?: string;
  }[];
  /**
   * How many more accounts there are than one message holds. Absent: none.
   */
  accountsOmitted?: number;
  /**
   * That of the grant's token set; it grows by one with each.
   */
  version: number;
  /**
   * The access token's end. Absent: it has none, or none is known.
   */
  expiresAt?: string;
  /**
   * The refresh token's end, likewise.
   */
  refreshTokenExpiresAt?: string;
  /**
   * The publisher's own, of the newest connect that brought some.
   */
  labels?: {
    [k: string]: string;
  };
  /**
   * Words may be added: take one that you do not know for "something else".
   */
  reason?:
    | (
        | "no_refresh_token"
        | "refresh_token_expired"
        | "mfa_required"
        | "rejected"
        | "not_found"
        | "bad_request"
        | "unavailable_for_legal_reasons"
        | "refresh_failing"
        | "not_covered"
        | "refresh_token_expiring"
        | "outcome_lost"
        | "unreadable"
        | "disconnected"
        | "replaced"
        | "moved"
        | "split"
        | "removed"
        | "removal_refused"
        | "removal_timed_out"
        | "no_access_token"
      )
    | string;
  /**
   * With errorHash: from Mesh's last answer, for a question to its support.
   */
  errorType?: string;
  errorHash?: string;
}

/**
 * The code has completed the refresh. Fields may be added.
 */
export interface MFAReply {
  grantId: string;
  /**
   * That of the new token set. Absent: it is on its way into the database.
   */
  version?: number;
  /**
   * The access token's end. Absent: it has none, or none is known.
   */
  expiresAt?: string;
}

/**
 * Brings the code for which a grant's refresh waits, on its user's token.mfa subject. Members that are unknown, null or empty are refused.
 */
export interface MFARequest {
  /**
   * The company's own id of the user: at most 256 bytes of UTF-8, no control or formatting characters.
   */
  userId: string;
  /**
   * That of the token.expiring event.
   */
  grantId: string;
  /**
   * What the institution has sent to the user.
   */
  code: string;
  /**
   * That of the token.expiring event. Absent: whichever.
   */
  version?: number;
}
