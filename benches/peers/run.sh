#!/usr/bin/env bash
# Cribwork beside etcd on this machine: three nodes each on loopback, both clusters up, fsync on every
# commit, runs interleaved (etcd, cribwork, etcd, ...), fresh data. Prints medians (and the spread) of
# throughput and latency, and the CPU time that the three server processes spend on one operation, which
# is the figure that other load on the machine moves least.
#
#   benches/peers/run.sh                        # needs etcd: apt-get install etcd-server
#   RUNS=1 DURATION=3s benches/peers/run.sh     # quick look
#
# Environment: RUNS (3), DURATION (10s), CASES ("put:64 put:256 get:64", operation:workers), KEYS
# (100000), DATA (parent of the data directories; must be a real disk), CRIBWORK, ETCD, ETCD_LOAD (binaries).
set -euo pipefail

cd "$(dirname "$0")/../.."
RUNS=${RUNS:-3}
DURATION=${DURATION:-10s}
CASES=${CASES:-put:64 put:256 get:64}
KEYS=${KEYS:-100000}
ETCD=${ETCD:-etcd}
TARGET=${CARGO_TARGET_DIR:-target}
CRIBWORK=${CRIBWORK:-$TARGET/release/cribwork}
ETCD_LOAD=${ETCD_LOAD:-$TARGET/release/etcd-load}
readonly PORT_ETCD=23790 PORT_CRIBWORK=24160
readonly ETCD_ENDPOINTS=127.0.0.1:23790,127.0.0.1:23791,127.0.0.1:23792
readonly CRIBWORK_ENDPOINTS=127.0.0.1:24160,127.0.0.1:24161,127.0.0.1:24162

fail() {
  echo "run.sh: $*" >&2
  exit 1
}

command -v "$ETCD" >/dev/null || fail "etcd is not installed: apt-get install etcd-server"
[[ -x $CRIBWORK && -x $ETCD_LOAD ]] ||
  fail "build first: cargo build --release -p cribwork-cli && cargo build --release -p cribwork-benches --bin etcd-load"

work=$(mktemp -d "${DATA:-${TMPDIR:-/tmp}}/cribwork-peers.XXXXXX")
etcd_pids=()
cribwork_pids=()

cleanup() {
  local pids=("${etcd_pids[@]}" "${cribwork_pids[@]}")
  if ((${#pids[@]})); then
    kill "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

port_open() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_port PORT PID LOG: until the process listens; fails if it ends or takes 30 s.
wait_port() {
  local deadline=$((SECONDS + 30))
  until port_open "$1"; do
    kill -0 "$2" 2>/dev/null || fail "a server ended early: $(tail -n 5 "$3")"
    ((SECONDS < deadline)) || fail "nothing listens on port $1: $(tail -n 5 "$3")"
    sleep 0.1
  done
}

start_etcd() {
  local i cluster="" peer
  for i in 0 1 2; do
    cluster+="${cluster:+,}n$i=http://127.0.0.1:$((PORT_ETCD + 10 + i))"
  done
  for i in 0 1 2; do
    peer=http://127.0.0.1:$((PORT_ETCD + 10 + i))
    "$ETCD" --name "n$i" --data-dir "$work/etcd$i" \
      --listen-client-urls "http://127.0.0.1:$((PORT_ETCD + i))" \
      --advertise-client-urls "http://127.0.0.1:$((PORT_ETCD + i))" \
      --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
      --initial-cluster "$cluster" --initial-cluster-state new \
      >"$work/etcd$i.log" 2>&1 &
    etcd_pids+=($!)
  done
  for i in 0 1 2; do
    wait_port $((PORT_ETCD + i)) "${etcd_pids[i]}" "$work/etcd$i.log"
  done
}

start_cribwork() {
  local i
  for i in 0 1 2; do
    "$CRIBWORK" start --data-dir "$work/cribwork$i" \
      --listen "127.0.0.1:$((PORT_CRIBWORK + i))" --http "127.0.0.1:$((PORT_CRIBWORK + 20 + i))" \
      --join "$CRIBWORK_ENDPOINTS" >"$work/cribwork$i.log" 2>&1 &
    cribwork_pids+=($!)
  done
  for i in 0 1 2; do
    wait_port $((PORT_CRIBWORK + i)) "${cribwork_pids[i]}" "$work/cribwork$i.log"
  done
  "$CRIBWORK" init --endpoints "$CRIBWORK_ENDPOINTS" --ranges 16 >"$work/init.log" 2>&1 ||
    fail "cribwork init: $(tail -n 5 "$work/init.log")"
}

# cpu_us PID...: user and system time of the processes so far, in microseconds.
cpu_us() {
  local pid stat total=0 ticks
  ticks=$(getconf CLK_TCK)
  for pid in "$@"; do
    stat=$(<"/proc/$pid/stat") || fail "server process $pid is gone"
    # The command name may hold spaces: count fields after its closing parenthesis.
    read -ra stat <<<"${stat##*) }"
    total=$((total + stat[11] + stat[12]))
  done
  echo $((total * 1000000 / ticks))
}

# load SYSTEM READ_PERCENT WORKERS DURATION: one run; prints its JSON line.
load() {
  case $1 in
    etcd)
      "$ETCD_LOAD" --endpoints "$ETCD_ENDPOINTS" --workers "$3" --duration "$4" --read-percent "$2" \
        --key-size 16 --value-size 128 --keys "$KEYS" 2>>"$work/load.log"
      ;;
    cribwork)
      "$CRIBWORK" workload kv --endpoints "$CRIBWORK_ENDPOINTS" --workers "$3" --duration "$4" \
        --read-percent "$2" --key-size 16B --value-size 128B --keys "$KEYS" --distribution uniform \
        --output json 2>>"$work/load.log" | tail -n 1
      ;;
  esac || fail "$1 load: $(tail -n 5 "$work/load.log")"
}

# field NAME JSON: a number out of a flat object.
field() {
  local value
  value=$(grep -oE "\"$1\": *-?[0-9.]+([eE][-+]?[0-9]+)?" <<<"$2" | head -n 1) || fail "no $1 in: $2"
  echo "${value##*[: ]}"
}

# measure SYSTEM OPERATION WORKERS: one run; appends "system case ops_per_s p50 p99 us_per_op errors".
measure() {
  local percent=0 before after json
  local -n pids="$1_pids"
  [[ $2 == get ]] && percent=100
  before=$(cpu_us "${pids[@]}")
  json=$(load "$1" "$percent" "$3" "$DURATION")
  after=$(cpu_us "${pids[@]}")
  echo "$1 $2:$3 $(field ops_per_s "$json") $(field p50_ms "$json") $(field p99_ms "$json")" \
    "$(awk -v us=$((after - before)) -v ops="$(field ops "$json")" 'BEGIN { print ops ? us / ops : 0 }')" \
    "$(field errors "$json")" >>"$work/results"
}

# median COLUMN SYSTEM CASE, and spread: lowest and highest.
column() { awk -v s="$2" -v c="$3" -v k="$1" '$1 == s && $2 == c { print $k }' "$work/results" | sort -g; }
median() { column "$@" | awk '{ v[NR] = $1 } END { printf "%.4f", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }
spread() { column "$@" | awk 'NR == 1 { low = $1 } { high = $1 } END { printf "%.0f-%.0f", low, high }'; }

table() {
  local format='%-9s %-8s %10s %15s %9s %9s %13s %7s\n' system case
  # shellcheck disable=SC2059 # the format is a constant
  printf "$format" system case ops/s "(min-max)" p50_ms p99_ms server_us/op errors
  for case in $CASES; do
    for system in etcd cribwork; do
      # shellcheck disable=SC2059
      printf "$format" "$system" "${case/:/ }" "$(printf %.0f "$(median 3 "$system" "$case")")" \
        "$(spread 3 "$system" "$case")" "$(printf %.2f "$(median 4 "$system" "$case")")" \
        "$(printf %.2f "$(median 5 "$system" "$case")")" \
        "$(printf %.0f "$(median 6 "$system" "$case")")" \
        "$(column 7 "$system" "$case" | awk '{ n += $1 } END { print n }')"
    done
  done
}

start_etcd
start_cribwork
{
  echo "$("$ETCD" --version | head -n 1); $(nproc) cores; data on $(df --output=fstype "$work" | tail -n 1)"
  echo "$RUNS runs of $DURATION a case, 16-byte keys, 128-byte values, $KEYS keys, uniform"
} >&2

# Unmeasured: makes connections and first files, and lets Cribwork split the workload's keys.
for system in etcd cribwork; do
  load "$system" 50 64 2s >/dev/null
done
for case in $CASES; do
  for ((run = 1; run <= RUNS; run++)); do
    for system in etcd cribwork; do
      echo "$case, run $run of $RUNS: $system" >&2
      measure "$system" "${case%:*}" "${case#*:}"
    done
  done
done
table
