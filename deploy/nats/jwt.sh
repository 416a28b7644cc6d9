#!/bin/sh
# Makes an operator, an account LATCHKEY with JetStream, in it a signing key for
# each role in roles/ with a user, all as JWTs, and the configuration of a server
# that trusts them. The permissions stand in the account, with the signing keys:
# in a user's own JWT those of a worker would be larger than NATS takes at
# connecting.
#
#   deploy/nats/jwt.sh DIR
#
# Needs nsc, which is fetched with Go when it is missing. Keep DIR/nsc: whoever
# has it makes users.
set -eu
umask 077
dir=${1:?usage: jwt.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir/creds"
dir=$(cd "$dir" && pwd)

if ! command -v nsc >/dev/null; then
  GOBIN="$dir/bin" go install github.com/nats-io/nsc/v2@v2.11.0
  PATH=$dir/bin:$PATH
fi
run() { nsc --all-dirs "$dir/nsc" "$@"; }

# subjects ROLE publish|subscribe: what the role's file permits, comma separated.
subjects() {
  awk -v want="$2" '
    /^publish:/ { at = "publish" }
    /^subscribe:/ { at = "subscribe" }
    /^\]/ { at = "" }
    at == want && !/^ *#/ {
      while (match($0, /"[^"]+"/)) {
        printf "%s%s", sep, substr($0, RSTART + 1, RLENGTH - 2)
        sep = ","
        $0 = substr($0, RSTART + RLENGTH)
      }
    }' "$here/roles/$1.conf"
}

run add operator --name latchkey --sys
run add account --name LATCHKEY
run edit account --name LATCHKEY --js-mem-storage -1 --js-disk-storage -1 --js-streams -1 --js-consumer -1
for role in worker operator publisher reader observer; do
  set -- --account LATCHKEY --sk generate --role "$role" --allow-pub "$(subjects $role publish)" --allow-sub "$(subjects $role subscribe)"
  if grep -q '^allow_responses' "$here/roles/$role.conf"; then
    set -- "$@" --allow-pub-response=1 --response-ttl 1m
  fi
  run edit signing-key "$@"
  run add user --account LATCHKEY --name "$role" -K "$role"
  run generate creds --account LATCHKEY --name "$role" --output-file "$dir/creds/$role.creds"
done
run generate config --mem-resolver --sys-account SYS --config-file "$dir/resolver.conf"
printf 'include "server.conf"\ninclude "resolver.conf"\n' >"$dir/jwt.conf"
cp "$here/server.conf" "$dir/server.conf"

echo "server:      nats-server --config $dir/jwt.conf"
echo "credentials: $dir/creds/ROLE.creds (nats.creds_file)"
