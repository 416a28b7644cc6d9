#!/bin/sh
# Writes out a role's file for an installation with nats.partitions: N, which
# names the streams, consumers and subjects of all partitions. It may be given
# a file that it has written, also to change N.
#
#   deploy/nats/partitions.sh N <deploy/nats/roles/worker.conf >worker.conf
set -eu
n=${1:?usage: partitions.sh N <ROLE.conf}

awk -v n="$n" '
  /^ *"/ && /LATCHKEY_REFRESH_[0-9]|"([A-Za-z0-9-]+\.)?refresh\.(schedule|due|urgent)\.[0-9]/ { next }
  { print }
  /^ *"/ && /LATCHKEY_REFRESH|"([A-Za-z0-9-]+\.)?refresh\.(schedule|due|urgent)/ {
    for (k = 1; k < n; k++) {
      line = $0
      sub(/LATCHKEY_REFRESH/, "&_" k, line)
      sub(/latchkey-([A-Za-z0-9-]+-)?refresh-(due|urgent)/, "&-" k, line)
      sub(/refresh\.(schedule|due|urgent)/, "&." k, line)
      print line
    }
  }'
