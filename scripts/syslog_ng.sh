#!/usr/bin/env bash
# Unpacks syslog-ng into /opt/syslog-ng for the system tests: its package cannot be installed beside rsyslog's.
set -euo pipefail
libraries="libcurl4 libivykis0 libjson-c5 libnet1 libpcre3 libwrap0"
# shellcheck disable=SC2086 - they are words
apt-get install -y -qq --no-install-recommends $libraries >/dev/null
folder=$(mktemp -d)
cd "$folder"
apt-get download -qq syslog-ng-core syslog-ng-mod-http >/dev/null
for package in *.deb; do
    dpkg -x "$package" /opt/syslog-ng
done
rm -rf "$folder"
