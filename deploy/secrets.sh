#!/bin/sh
# Makes what the compose file needs in deploy/secrets/: passwords, certificates
# and nkeys, of which nothing is replaced that is there, but certificates that end.
# Needs openssl and Go. What only you have is left empty and named at the end.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# Nobody else gets into the folder. Within it the files can be read, since the
# containers do so under users of their own.
mkdir -p "$here/secrets"
chmod 700 "$here/secrets"
cd "$here/secrets"

new() { # FILE: makes it from standard input unless it is there
  if [ -s "$1" ]; then cat >/dev/null; else cat >"$1"; fi
}

for name in mongodb-root-password mongodb-password grafana-password admin-token; do
  openssl rand -hex 24 | tr -d '\n' | new $name
done
printf 'mongodb://latchkey:%s@mongodb:27017/latchkey?replicaSet=latchkey&authSource=latchkey' "$(cat mongodb-password)" | new mongodb-uri
openssl rand -base64 96 | tr -d '\n' | new mongodb-keyfile

# They last ten years: a shorter life protects nothing where the authority's key
# lies beside them. Without that key they are of an authority of yours.
if [ ! -s ca.pem ] || [ -s ca.key ]; then
  made=$("$here/nats/certs.sh" . nats 3650)
  if [ -n "$made" ]; then
    echo "certificates are new; NATS, where it runs, takes them with: docker compose -f deploy/compose.yaml kill -s HUP nats"
  fi
fi
nk() { go run github.com/nats-io/nkeys/nk@v0.4.16 "$@"; }
# A key in clear text beside the encrypted files is worth little: keep the
# folder on another disk than the volume "nats".
if [ -s nats.env ]; then
  # Releases before named these as if they were the worker's.
  sed -e 's/^LATCHKEY_NATS_STORE_KEY=/NATS_SERVER_STORE_KEY=/' -e 's/^LATCHKEY_\([A-Z]*_NKEY\)=/NATS_SERVER_\1=/' nats.env >nats.env.new
  mv nats.env.new nats.env
else
  printf 'NATS_SERVER_STORE_KEY=%s\n' "x$(openssl rand -hex 32)" >nats.env.new
  for role in worker operator publisher reader observer; do
    [ -s $role.nk ] || nk -gen user >$role.nk
    public=$(nk -inkey $role.nk -pubout)
    printf 'NATS_SERVER_%s_NKEY=%s\n' "$(echo $role | tr a-z A-Z)" "$public" >>nats.env.new
  done
  mv nats.env.new nats.env
fi

touch mesh-client-secret aws-credentials
chmod 644 ./*
[ -s mesh-client-secret ] || echo "secrets/mesh-client-secret is empty: write Mesh's client secret into it"
[ -s aws-credentials ] || echo "secrets/aws-credentials is empty: fine on a machine with an instance profile; else an AWS credentials file"
