#!/bin/sh
# Makes certificates for a trial: an authority, one for the server and one for
# each role, valid for 30 days. Real ones come from your own authority.
#
#   deploy/nats/certs.sh DIR [NAME-OF-THE-SERVER]
set -eu
umask 077
dir=${1:?usage: certs.sh DIR [NAME-OF-THE-SERVER]}
host=${2:-localhost}
mkdir -p "$dir"
cd "$dir"

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null; }

key ca
openssl req -x509 -new -key ca.key -subj "/CN=latchkey trial authority" -days 30 -out ca.pem \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"

issue() { # NAME USAGE ALTERNATIVE-NAMES
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$2" "$3" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
  rm "$1.csr" "$1.ext"
}

issue server serverAuth "DNS:$host,DNS:localhost,IP:127.0.0.1"
for role in worker operator publisher reader observer; do
  issue "$role" clientAuth "DNS:$role"
done
echo "in $dir: ca.pem, and NAME.pem with NAME.key for server, worker, operator, publisher, reader, observer"
