#!/usr/bin/env bash
# build.sh FOLDER: compiles every case and what they aim at into FOLDER, without any need for libraries where they run.

set -euo pipefail
into=$1
cd "$(dirname "$0")"
# As many at a time as there are processors: each takes a tenth of a second, most of it linking.
# shellcheck disable=SC2016  # The inner shell expands them.
printf '%s\0' ./*.c targets/*.c | xargs -0 -P "$(nproc)" -I{} sh -c \
    'cc -std=gnu11 -O1 -static -pthread -Wall -Wextra -Wno-unused-result -o "$1/$(basename "$2" .c)" "$2"' sh "$into" {}
