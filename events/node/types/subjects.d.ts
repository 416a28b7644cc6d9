/** The user as one token of a subject. encodeURIComponent leaves the dot and others alone. @param {string} userId */
export function subjectToken(userId: string): string;
/** The kinds of lifecycle events. */
export const lifecycleKinds: string[];
/** Subjects and streams of an installation. */
export class Subjects {
    /** @param {string} prefix */
    constructor(prefix: string);
    /** @param {string} name @param {string} [userId] without one of all users, where there are users */
    of(name: string, userId?: string): string;
    /** @param {string} name */
    all(name: string): string;
    /** One of the streams of lifecycle events. @param {number} [n] */
    lifecycleStream(n?: number): string;
    #private;
}
