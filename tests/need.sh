#!/bin/sh
# need.sh COMMAND DEBIAN_PACKAGE: the tests run against real programs; see that this one is here. A path is a file's, and may be a pattern.
here() {
    case $1 in
        /*) ls $1 >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}
here "$1" && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "greentls: installing $2 (the tests run a real $1)"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes "$2"; } >/dev/null 2>&1
    here "$1" && exit 0
fi
echo "greentls: the tests run a real $1, which is not here. Install it: sudo apt-get install $2" >&2
exit 1
