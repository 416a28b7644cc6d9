#!/bin/sh
# Writes out a role's file, or accounts.conf, for an installation with
# nats.partitions: N, which names the streams, consumers and subjects of all
# partitions. It may be given a file that it has written, also to change N.
#
#   deploy/nats/partitions.sh N <deploy/nats/roles/worker.conf >worker.conf
set -eu
n=${1:?usage: partitions.sh N <FILE.conf}

awk -v n="$n" '
  /^ *["{]/ && /LATCHKEY_(REFRESH|LIFECYCLE|AUDIT)_[0-9]|"([A-Za-z0-9-]+\.)?refresh\.(schedule|due|urgent)\.[0-9]/ { next }
  { print }
  /^ *["{]/ && /LATCHKEY_(REFRESH|LIFECYCLE|AUDIT)|"([A-Za-z0-9-]+\.)?refresh\.(schedule|due|urgent)/ {
    for (k = 1; k < n; k++) {
      line = $0
      gsub(/LATCHKEY_(REFRESH|LIFECYCLE|AUDIT)/, "&_" k, line)
      sub(/latchkey-([A-Za-z0-9-]+-)?refresh-(due|urgent)/, "&-" k, line)
      sub(/refresh\.(schedule|due|urgent)/, "&." k, line)
      print line
    }
  }'
