#!/usr/bin/env bash
# The life of a model, over the gateway, with curl alone: package, deploy, ask, list, a second version, roll back,
# delete; pull and push.
#
#   export CONSTELLATION_URL=http://127.0.0.1:8700 CONSTELLATION_API_KEY=constellation_…
#   examples/gateway/lifecycle.sh REPOSITORY [SECOND_REPOSITORY [IMAGE:TAG PUSH_TO]]
#
# ENVIRONMENT (dev) and NAME (examples/gateway-sentiment) may be set.
set -euo pipefail
shopt -s inherit_errexit

URL=${CONSTELLATION_URL:-http://127.0.0.1:8700}
KEY=${CONSTELLATION_API_KEY:?an API key: constellation-docker keys create --name NAME --role operator}
ENVIRONMENT=${ENVIRONMENT:-dev}
NAME=${NAME:-examples/gateway-sentiment}
FIRST=${1:?the address of the first version\'s repository}
SECOND=${2:-}
IMAGE=${3:-}
PUSH_TO=${4:-}

# call METHOD PATH [JSON]: prints the answer; an error ends the script with the gateway's own words.
call() {
    local answer
    # The key goes by a file descriptor, so that it does not stand in the list of processes.
    answer=$(curl --silent --show-error --fail-with-body --noproxy '*' --max-time 120 \
        --header @<(printf 'Authorization: Bearer %s\n' "$KEY") --header 'Content-Type: application/json' \
        --request "$1" "$URL$2" ${3:+--data "$3"}) || { echo "$1 $2: $answer" >&2; exit 1; }
    echo "$1 $2 → ${answer:0:160}" >&2
    printf '%s' "$answer"
}

# field NAME: the first text of that name in a JSON answer.
field() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }

# wait_for PATH STATUS [ENVIRONMENT]: looks until something has a status.
wait_for() {
    local answer part status
    for _ in $(seq 900); do
        answer=$(call GET "$1" 2>/dev/null)
        part=$answer
        if [ -n "${3:-}" ]; then part=$(grep -o "{\"environment\":\"$3\".*" <<<"$answer" || true); fi
        status=$(field status <<<"$part" || true)
        if [ "$status" = "$2" ]; then echo "$1 is $2" >&2; printf '%s' "$part"; return; fi
        if [ "$status" = failed ]; then echo "$1 failed: $answer" >&2; exit 1; fi
        sleep 1
    done
    echo "$1 was not $2 in time." >&2
    exit 1
}

# register VERSION REPOSITORY: prints the model_id, once it is packaged.
register() {
    local model_id
    model_id=$(call POST /docker/models/ "{\"model_name\": \"$NAME\", \"model_version\": \"$1\", \"repo_url\": \"$2\",
        \"branch\": null, \"model_card\": {\"description\": \"How a sentence feels.\", \"data_used\": \"Reviews.\",
        \"dependencies\": []}}" | field model_id)
    wait_for "/docker/models/$model_id/status/" packaged >/dev/null
    echo "$model_id"
}

# deploy MODEL_ID: prints the endpoint's address, once it answers.
deploy() {
    call POST "/docker/models/$1/deploy/" "{\"environment\": \"$ENVIRONMENT\", \"replicas\": 1}" >/dev/null
    wait_for "/docker/models/$1/status/" deployed "$ENVIRONMENT" | field endpoint_url
}

ask() {
    curl --silent --show-error --fail --noproxy '*' --header 'Content-Type: application/json' \
        --data '{"inputs": "I loved this film, the acting was wonderful."}' "$1"
    echo
}

first=$(register 1.0.0 "$FIRST")
endpoint=$(deploy "$first")
ask "$endpoint"
call GET "/docker/models/?name=$NAME" >/dev/null
made=$first

if [ -n "$SECOND" ]; then
    second=$(register 2.0.0 "$SECOND")
    made="$second $first"
    deploy "$second" >/dev/null
    call POST "/docker/models/$second/rollback/" "{\"environment\": \"$ENVIRONMENT\"}" >/dev/null
    wait_for "/docker/models/$first/status/" deployed "$ENVIRONMENT" >/dev/null
    ask "$endpoint"
fi

if [ -n "$IMAGE" ]; then
    repository=${IMAGE%:*} tag=${IMAGE##*:}
    image_id=$(call POST /docker/images/pull/ "{\"repository\": \"$repository\", \"tag\": \"$tag\"}" | field image_id)
    wait_for "/docker/images/$image_id/status/" completed >/dev/null
    image_id=$(call POST /docker/images/push/ \
        "{\"image_name\": \"$repository\", \"tag\": \"$tag\", \"repository\": \"$PUSH_TO\"}" | field image_id)
    wait_for "/docker/images/$image_id/status/" completed >/dev/null
fi

for model_id in $made; do
    call DELETE "/docker/models/$model_id/" >/dev/null
    wait_for "/docker/models/$model_id/status/" deleted >/dev/null
done
echo done
