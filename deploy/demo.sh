#!/usr/bin/env bash
# The main job from beginning to end, with ordinary commands, shown as they run:
# two institutions, one coordinator, three processes on this machine's loopback interface, mutual TLS.
#
#   MODE=csfssl|ppfssl        how to federate                         (csfssl)
#   START=SITE                site that begins: first in the ring(the first of SITES)
#   SITES="a=DIR b=DIR ..."   folders with manifest.csv and images    (phantom institutions nhs and alts, drawn here)
#   WOMEN=N                   labelled women of each phantom site     (60)
#   FOLDER=DIR                where everything is written             (./demo)
set -euo pipefail

MODE=${MODE:-csfssl}
WOMEN=${WOMEN:-60}
FOLDER=${FOLDER:-demo}
SITES=${SITES:-}
UNLABELLED_PER_LABELLED=1.5

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; }
run() { show "$@"; "$@"; }

started=()
page_pid=
finish() {
  for pid in "${started[@]:-}" "$page_pid"; do
    if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
      wait "$pid" 2>/dev/null || true # what we ended ourselves is no failure of the demo
    fi
  done
  return 0
}
trap finish EXIT

# in_background NAME COMMAND...: run it beside the others, its lines marked with NAME; the process's id is in $pid.
in_background() {
  local name=$1
  shift
  show "$@  &"
  "$@" > >(sed -u "s/^/  $name | /") 2>&1 &
  pid=$!
  started+=("$pid")
}

# all_of PID...: wait for all; as soon as one fails, end the demo (and the others with it).
all_of() {
  local left=("$@") done_pid status one rest
  while [ "${#left[@]}" -gt 0 ]; do
    status=0
    wait -n -p done_pid "${left[@]}" || status=$?
    if [ "$status" -ne 0 ]; then
      [ -e "$FOLDER/coordinator.log" ] && tail -n 5 "$FOLDER/coordinator.log" >&2
      echo "error: a process ended with exit code $status; its last lines are above" >&2
      exit "$status"
    fi
    rest=()
    for one in "${left[@]}"; do [ "$one" = "$done_pid" ] || rest+=("$one"); done
    left=("${rest[@]}")
  done
  started=()
}

if [ -e "$FOLDER" ] && [ ! -e "$FOLDER/.fedcervix-demo" ]; then
  echo "error: $FOLDER exists and was not made by this demo" >&2
  echo "  likely cause: another folder of that name" >&2
  echo "  next: FOLDER=some-other-name make demo" >&2
  exit 2
fi
rm -rf "$FOLDER"
mkdir -p "$FOLDER"
touch "$FOLDER/.fedcervix-demo"

if [ -z "$SITES" ]; then
  say "Two phantom institutions: drawn cervices, two cameras, two label criteria"
  for name in nhs alts; do
    run site-agent data phantom "$FOLDER/data/$name" --institution "$name" --women "$WOMEN" \
      --unlabelled-per-labelled "$UNLABELLED_PER_LABELLED" 2>/dev/null
    SITES="$SITES $name=$FOLDER/data/$name"
  done
fi

names=()
declare -A manifest
for pair in $SITES; do
  name=${pair%%=*}
  names+=("$name")
  manifest[$name]="${pair#*=}/manifest.csv"
done
if [ -n "${START:-}" ]; then
  if [ -z "${manifest[$START]:-}" ]; then
    echo "error: START=$START is not one of ${names[*]}" >&2
    exit 2
  fi
  rest=()
  for name in "${names[@]}"; do [ "$name" = "$START" ] || rest+=("$name"); done
  names=("$START" "${rest[@]}")
fi
roster=$(IFS=,; echo "${names[*]}")
cores=$(getconf _NPROCESSORS_ONLN)
threads=$((cores / ${#names[@]}))
[ "$threads" -ge 1 ] || threads=1

say "What each institution holds"
for name in "${names[@]}"; do
  run site-agent data check "${manifest[$name]}" --cache "$FOLDER/$name/cache" 2>/dev/null
done

say "The coordinator: a home folder with authority and configuration, then the process"
home=$FOLDER/coordinator
run coordinator init "$home" --sites "$roster" --profile demo --advertise localhost:0 --bind 127.0.0.1:0
show coordinator --home "$home" start --mode "$MODE" " &   (its log: $FOLDER/coordinator.log)"
coordinator --home "$home" start --mode "$MODE" >"$FOLDER/coordinator.log" 2>&1 &
coordinator_pid=$!
started+=("$coordinator_pid")
for _ in $(seq 100); do
  [ -e "$home/running.json" ] && break
  kill -0 "$coordinator_pid" 2>/dev/null || { cat "$FOLDER/coordinator.log"; exit 1; }
  read -rt 0.1 <> <(:) || true
done
[ -e "$home/running.json" ] || { cat "$FOLDER/coordinator.log"; exit 1; }

if python -c 'import starlette, uvicorn' 2>/dev/null; then
  say "The page: open its address in a browser, if you like. It works once; the page ends with this demo"
  show coordinator --home "$home" page " &"
  coordinator --home "$home" page > >(sed -u 's/^/  page | /') 2>&1 &
  page_pid=$!
fi

say "Invitations: each site makes its key itself and trades its one-time invitation for a certificate"
for name in "${names[@]}"; do
  run coordinator --home "$home" invite "$name" --out "$FOLDER/$name.invitation.toml"
  run site-agent --home "$FOLDER/$name" join "$FOLDER/$name.invitation.toml" \
    --manifest "${manifest[$name]}" --threads "$threads"
  rm "$FOLDER/$name.invitation.toml"
done
run site-agent --home "$FOLDER/${names[0]}" check

say "The federation: every site trains on its own images; only weights travel"
site_pids=()
for name in "${names[@]}"; do
  in_background "$name" site-agent --home "$FOLDER/$name"
  site_pids+=("$pid")
done
all_of "${site_pids[@]}" "$coordinator_pid"
tail -n 2 "$FOLDER/coordinator.log"
run coordinator --home "$home" status

beside() {
  local pids=()
  for name in "${names[@]}"; do
    in_background "$name" site-agent --home "$FOLDER/$name" "$@"
    pids+=("$pid")
  done
  all_of "${pids[@]}"
}
say "For comparison: contrastive learning on each site's own images alone (SSL)"
beside pretrain
say "Each site fine-tunes on its own labels, from each start"
beside finetune
say "Each site evaluates on women it never trained on, and writes its report"
for name in "${names[@]}"; do
  run site-agent --home "$FOLDER/$name" evaluate
done

say "Done. The reports (they hold images and stay at the site):"
for name in "${names[@]}"; do echo "  $FOLDER/$name/reports/latest/report.html"; done
echo "The federated model with its record: $(echo "$home"/results/*)"
