#!/usr/bin/env bash
# Agents that talk to each other, from nothing, on one machine. Usage: docs/joint-demo.sh NEW_FOLDER
#
# Four hospitals agree on a charter with joint answers in it. Each serves a model that it trained at home; one of them
# asks its own and all four together, and again with one agent missing. Then a network for digits is cut in four pieces
# at three processes, trained through them, and compared with the whole network.
# Needs `collegium` with the extra `simulate` on PATH. What happens here: docs/how-to-joint.md.
set -euo pipefail
umask 077

examples=$(cd "$(dirname "$0")/examples" && pwd)
home=${1:?a new folder}
[ -e "$home" ] && { echo "$home exists"; exit 2; }
port=${PORT:-9543}
sites=(cleveland hungarian switzerland va)
holders=(hungarian va)
mkdir "$home"; cd "$home"
say() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
agents=()
finish() { kill "${agents[@]}" 2>/dev/null || true; wait 2>/dev/null || true; }
trap finish EXIT
listening() {  # LOG...: waits until each says where it listens
  for log in "$@"; do
    for _ in $(seq 600); do grep -q "listens on" "$log" && continue 2; sleep 0.2; done
    cat "$log"; exit 1
  done
}

say "data, keys, certificates"
collegium scenarios --export hospitals --out data > /dev/null
collegium ca init root --federation hospitals > root.txt
fingerprint=$(grep -oE '[0-9a-f]{64}' root.txt | head -1)
collegium site enroll --site coordinator --federation hospitals --role server --dns localhost --out coordinator > enrol.txt
declare -A pen
for site in "${sites[@]}"; do
  pen[$site]=$(collegium federation key --out "officers/$site.key" 2>/dev/null)
  collegium site enroll --site "$site" --federation hospitals --out "$site" >> enrol.txt
done
identities=($(grep -oE '^  [0-9a-f]{64}' enrol.txt))
i=0
for party in coordinator "${sites[@]}"; do
  role=$([ "$party" = coordinator ] && echo "--role server --dns localhost" || true)
  collegium ca issue root "$party/enrol-$party.json" --site "$party" --identity "${identities[$i]}" $role > /dev/null
  i=$((i + 1))
done

say "a plan: digits_chain.py's network in four pieces at three machines"
cp "$examples/digits_chain.py" "$examples/devices-digits.toml" .
collegium plan digits_chain:network --optimizer sgd --devices devices-digits.toml --out plan | grep -A 8 '^Together'
chain=$(grep -oE '"chain_digest": "[0-9a-f]{64}"' plan/plan.json | grep -oE '[0-9a-f]{64}')

say "the charter, with joint answers and this chain"
{
  echo 'federation = "hospitals"'
  echo "application = \"$(collegium federation application)\""
  echo 'unsafe_without_dp = false'
  echo '[rule]'; echo 'signatures = 3'
  echo '[floors]'; echo 'cohort = 3'; echo 'survivors = 3'; echo 'threshold = 2'; echo 'cover = 3'
  echo '[window]'
  echo "not_before = $(date -u -d yesterday +%Y-%m-%dT%H:%M:%SZ)"
  echo "not_after = $(date -u -d 'next year' +%Y-%m-%dT%H:%M:%SZ)"
  echo '[studies]'; echo "hospitals = \"$(collegium federation study data/study.toml)\""
  echo '[strategies.fedavg]'
  echo 'rounds = { low = 1, high = 1000 }'; echo 'retries = { low = 0, high = 10 }'
  echo 'local_steps = { low = 1, high = 10 }'; echo 'batch = { low = 0, high = 1000 }'
  echo 'learning_rate = { low = 0.001, high = 1 }'
  echo '[assets.heart-disease]'; echo 'purposes = ["training"]'; echo 'epsilon = 4'; echo 'delta = 0.001'
  echo '[privacy.record]'; echo 'epsilon = 1'; echo 'delta = 0.001'; echo 'clip = 1'; echo 'noise = 1'
  echo '[inference]'
  echo 'agents = ["cleveland", "hungarian", "switzerland", "va"]'
  echo 'modes = ["local", "ensemble"]'; echo 'purposes = ["diagnosis"]'; echo 'most_queries = 1000'
  echo '[chains]'; echo "digits = \"$chain\""
  echo '[server]'; echo 'enrolment = "coordinator/enrol-coordinator.json"'
  for site in "${sites[@]}"; do echo '[[sites]]'; echo "enrolment = \"$site/enrol-$site.json\""; done
  for site in "${sites[@]}"; do echo '[[officers]]'; echo "name = \"Officer of $site\""; echo "site = \"$site\""; echo "${pen[$site]}"; done
} > charter.toml
digest=$(collegium federation init charter.toml --out charter.json 2>/dev/null)
for site in cleveland hungarian va; do
  collegium federation sign charter.json --key "officers/$site.key" --digest "$digest" > /dev/null
done
collegium federation show charter.json | tail -1

say "each site joins, with its policy, and with where the others listen"
collegium site policy show demo.cedar > site.cedar
for i in "${!sites[@]}"; do
  site=${sites[$i]}
  {
    echo "server = \"https://127.0.0.1:9\"  # no coordinator here: nobody trains together in this demo"
    echo '[asset.heart-disease]'; echo "path = \"../data/$site.csv\""; echo 'purposes = ["training"]'
    echo 'sensitivity = "special-category"'; echo 'incomplete = "drop"'
    echo '[channel]'; echo "listen = \"127.0.0.1:$((port + i))\""
    echo '[channel.peers]'
    for j in "${!sites[@]}"; do echo "${sites[$j]} = \"127.0.0.1:$((port + j))\""; done
    for j in "${!holders[@]}"; do echo "${holders[$j]}-pc = \"127.0.0.1:$((port + 10 + j))\""; done
  } > "$site.toml"
  collegium site join "$site" --certificate "$(ls root/issued/*"$site"*.pem | head -1)" --root root/root.pem \
    --fingerprint "$fingerprint" --charter charter.json --digest "$digest" --study data/study.toml \
    --policy site.cedar --settings "$site.toml" > /dev/null
done

say "four agents serve the models that they trained at home"
for site in "${sites[@]}"; do collegium serve "$site" > "$site.log" 2>&1 & agents+=($!); done
listening "${sites[@]/%/.log}"
cat cleveland.log

say "cleveland asks its own model, and all four together"
collegium predict cleveland --rows 5
collegium predict cleveland --rows 5 --mode ensemble

say "the same, and the agent of va is not there: no sum of the other three is ever opened"
kill "${agents[3]}"; wait "${agents[3]}" 2>/dev/null || true
collegium predict cleveland --rows 5 --mode ensemble

say "a purpose that the charter does not list"
if collegium predict cleveland --rows 5 --purpose curiosity; then echo "it should have been refused"; exit 1; fi

say "hungarian and va hold the pieces between"
for j in "${!holders[@]}"; do
  holder=${holders[$j]}
  collegium stage serve "$holder" --device "$holder-pc" --listen "127.0.0.1:$((port + 10 + j))" \
    --model digits_chain:network --deadline 60 > "$holder-stage.log" 2>&1 & agents+=($!)
done
listening "${holders[@]/%/-stage.log}"
cat hungarian-stage.log

say "cleveland trains through them"
python=$(dirname "$(command -v collegium)")/python
[ -x "$python" ] || python=python3
"$python" digits_chain.py cleveland plan/plan.json

say "done"
