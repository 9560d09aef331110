#!/usr/bin/env bash
# Four hospitals and a coordinator on one machine, each a process with a folder of its own, over mutual TLS on loopback:
# from nothing to a finished run, then an agent that is killed and comes back, and a strategy that the charter does not
# list. The how-tos say who does which step in earnest, and what they compare by telephone.
#
#   docs/demo.sh FOLDER [--privacy none|record|…]     FOLDER must be new; port 9443, or PORT=…
#
# Each site has the shipped demo policy, which asks for differential privacy; only with --privacy none another one.
set -euo pipefail
umask 077

home=${1:?a new folder}; shift
[ -e "$home" ] && { echo "$home exists"; exit 2; }
options=("$@"); [ "$#" -eq 0 ] && options=(--privacy record)
port=${PORT:-9443}
sites=(cleveland hungarian switzerland va)
mkdir "$home"; cd "$home"
say() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
agents=()
finish() { kill "${agents[@]}" 2>/dev/null || true; wait 2>/dev/null || true; }
trap finish EXIT

say "data: what each hospital would have on its own disk"
collegium scenarios --export hospitals --out data

say "the root, and a key for each officer"
collegium ca init root --federation hospitals | tee root.txt
fingerprint=$(grep -oE '[0-9a-f]{64}' root.txt | head -1)
declare -A pen
for site in "${sites[@]}"; do
  pen[$site]=$(collegium federation key --out "officers/$site.key" 2>/dev/null)
done

say "each party makes its own keys, and asks for a certificate"
collegium site enroll --site coordinator --federation hospitals --role server --dns localhost --out coordinator > enrol.txt
for site in "${sites[@]}"; do
  collegium site enroll --site "$site" --federation hospitals --out "$site" >> enrol.txt
done
identities=($(grep -oE '^  [0-9a-f]{64}' enrol.txt))
i=0
for party in coordinator "${sites[@]}"; do
  role=$([ "$party" = coordinator ] && echo "--role server --dns localhost" || true)
  collegium ca issue root "$party/enrol-$party.json" --site "$party" --identity "${identities[$i]}" $role
  i=$((i + 1))
done

say "the charter: drafted, signed by three of four officers"
{
  echo 'federation = "hospitals"'
  echo "application = \"$(collegium federation application)\""
  echo 'unsafe_without_dp = true  # so that this demo can be compared with a run in one process'
  echo '[rule]'; echo 'signatures = 3'
  echo '[floors]'; echo 'cohort = 3'; echo 'survivors = 3'; echo 'threshold = 2'; echo 'cover = 3'
  echo '[window]'
  echo "not_before = $(date -u -d yesterday +%Y-%m-%dT%H:%M:%SZ)"
  echo "not_after = $(date -u -d 'next year' +%Y-%m-%dT%H:%M:%SZ)"
  echo '[studies]'; echo "hospitals = \"$(collegium federation study data/study.toml)\""
  for strategy in fedavg fedprox; do
    echo "[strategies.$strategy]"
    [ "$strategy" = fedprox ] && echo 'mu = { low = 0, high = 0.1 }'
    echo 'rounds = { low = 1, high = 1000 }'
    echo 'retries = { low = 0, high = 10 }'
    echo 'local_steps = { low = 1, high = 10 }'
    echo 'batch = { low = 0, high = 1000 }'
    echo 'learning_rate = { low = 0.001, high = 1 }'
  done
  echo '[assets.heart-disease]'; echo 'purposes = ["training"]'; echo 'epsilon = 4'; echo 'delta = 0.001'
  for setting in record distributed; do
    echo "[privacy.$setting]"; echo 'epsilon = 1'; echo 'delta = 0.001'; echo 'clip = 1'; echo 'noise = 1'
  done
  echo '[server]'; echo 'enrolment = "coordinator/enrol-coordinator.json"'
  for site in "${sites[@]}"; do echo '[[sites]]'; echo "enrolment = \"$site/enrol-$site.json\""; done
  for site in "${sites[@]}"; do echo '[[officers]]'; echo "name = \"Officer of $site\""; echo "site = \"$site\""; echo "${pen[$site]}"; done
} > charter.toml
digest=$(collegium federation init charter.toml --out charter.json 2>/dev/null)
for site in cleveland hungarian va; do
  collegium federation sign charter.json --key "officers/$site.key" --digest "$digest"
done
collegium federation show charter.json | tail -1

say "each party joins: certificate, root, charter, study, its own policy and settings"
collegium site policy show server.cedar > server.cedar
collegium site policy show demo.cedar > site.cedar
[[ " ${options[*]} " == *" none "* ]] && cat > site.cedar <<'POLICY'
// For comparing with a run in one process: anything that the charter allows on its assets. Not for real data.
@id("what-the-charter-allows")
permit (principal, action == Action::"train", resource) when { resource.purposes.contains(context.purpose) };
POLICY
printf 'listen = "127.0.0.1:%s"\n[roles]\noperator = ["%s"]\nreader = ["%s"]\n' "$port" "$(id -un)" "$(id -un)" > server.toml
issued() { ls root/issued/*"$1"*.pem 2>/dev/null | head -1; }
collegium site join coordinator --certificate "$(issued coordinator)" --root root/root.pem --fingerprint "$fingerprint" \
  --charter charter.json --digest "$digest" --study data/study.toml --policy server.cedar --settings server.toml
for site in "${sites[@]}"; do
  cat > "$site.toml" <<SETTINGS
server = "https://127.0.0.1:$port"
timezone = "UTC"
[asset.heart-disease]
path = "../data/$site.csv"
purposes = ["training"]
sensitivity = "special-category"
incomplete = "drop"
SETTINGS
  collegium site join "$site" --certificate "$(issued "$site")" --root root/root.pem --fingerprint "$fingerprint" \
    --charter charter.json --digest "$digest" --study data/study.toml --policy site.cedar --settings "$site.toml"
  collegium site check "$site" --offline
done

say "the server and four agents start"
collegium server start coordinator > coordinator.log 2>&1 & agents+=($!)
for site in "${sites[@]}"; do
  collegium site start "$site" > "$site.log" 2>&1 & agents+=($!)
done

say "a run"
collegium server run fedavg coordinator --asset heart-disease "${options[@]}" --name first --deadline 20

say "a run in which the agent of va is killed, and comes back"
collegium server run fedavg coordinator --asset heart-disease "${options[@]}" --name second --deadline 15 > second.log 2>&1 &
run=$!
sleep 4; kill -9 "${agents[4]}"; sleep 2
collegium site start va >> va.log 2>&1 & agents[4]=$!
wait $run || { cat second.log; exit 1; }
tail -2 second.log

say "a strategy that the charter does not list"
if collegium server run scaffold coordinator --asset heart-disease "${options[@]}" --name third; then
  echo "it should have been refused"; exit 1
fi

say "what came of it"
grep -oE '"identity":"[^"]*"' coordinator/enrol-coordinator.json | cut -d '"' -f 4 > trusted-keys.txt
collegium verify coordinator/runs/first/report.html --trust trusted-keys.txt
collegium server status coordinator
for site in "${sites[@]}"; do echo "$site keeps its own score: $(cat "$site/runs/first/score.json")"; done
