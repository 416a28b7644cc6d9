#!/bin/sh
# Makes an authority, and its certificates for the server and for each role, valid
# for 30 days or as many as you say. Run again, it makes what is missing, and renews
# what has less than a third of the days left. Keys stay, the authority's too: an old
# and a new certificate trust each other, so that servers and clients need not change
# at the same moment.
#
#   deploy/nats/certs.sh DIR [NAME-OF-THE-SERVER [DAYS]]
set -eu
umask 077
dir=${1:?usage: certs.sh DIR [NAME-OF-THE-SERVER [DAYS]]}
host=${2:-localhost}
days=${3:-30}
mkdir -p "$dir"
cd "$dir"

key() { [ -s "$1.key" ] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null; }

good() { [ -s "$1.pem" ] && openssl x509 -in "$1.pem" -noout -checkend $((days * 86400 / 3)) >/dev/null; }

# The same file with another content: what is mounted into a container stays mounted.
put() { cat "$1.new" >"$1.pem" && rm "$1.new" && echo "made $1.pem"; }

if [ -s ca.pem ] && [ ! -s ca.key ]; then
  echo "$dir/ca.pem is there without ca.key: its certificates can only be made where that key is" >&2
  exit 1
fi
if ! good ca; then
  key ca
  openssl req -x509 -new -key ca.key -subj "/CN=latchkey trial authority" -days "$days" -out ca.new \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
  put ca
fi

issue() { # NAME USAGE ALTERNATIVE-NAMES
  if good "$1"; then return; fi
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$2" "$3" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days "$days" -extfile "$1.ext" -out "$1.new" 2>/dev/null
  rm "$1.csr" "$1.ext"
  put "$1"
}

issue server serverAuth "DNS:$host,DNS:localhost,IP:127.0.0.1"
for role in worker operator publisher reader observer; do
  issue "$role" clientAuth "DNS:$role"
done
