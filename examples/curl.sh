#!/usr/bin/env bash
# The same with curl: a task of the task service, then a scenario of the gateway with a picture of yours. Needs curl and jq.
#
#     examples/curl.sh portrait.png pictures
set -euo pipefail

server=${TASK_API_URL:-http://127.0.0.1:8000}
picture=$1
folder=${2:-.}
json='Content-Type: application/json'
mkdir -p "$folder"

echo "Task service: submit, poll, download" >&2
task=$(curl -sf "$server/api/tasks/create" -H "$json" \
    -d '{"workflow": "text-to-image", "inputs": {"prompt": "cyberpunk city at night", "seed": 42, "width": 512, "height": 512}}' | jq -r .task_id)
until state=$(curl -sf "$server/api/tasks/$task"); jq -e '.status | IN("COMPLETED", "FAILED", "CANCELLED")' <<<"$state" >/dev/null; do
    jq -r '"  \(.status) \(.progress) %"' <<<"$state" >&2
    sleep 0.5
done
url=$(jq -er .result_url <<<"$state") || { jq -r .error <<<"$state" >&2; exit 1; }
curl -sf "$url" -o "$folder/city.png"
echo "$folder/city.png"

echo "Gateway: upload, run a scenario, read its history, download" >&2
name=$(curl -sf "$server/api/v1/images/upload" -F "file=@$picture" -F overwrite=true | jq -er .data.name)
answer=$(jq -n --arg image "$name" '{prompt: "a beautiful sunset over mountains", negative_prompt: "blurry", input_image: $image}' |
    curl -sf "$server/api/v1/scenarios/cpu_quickly" -H "$json" -d @-)
jq -e '.code == 200' <<<"$answer" >/dev/null || { jq -r .message <<<"$answer" >&2; exit 1; } # errors come with HTTP status 200 and a code
prompt=$(jq -r .data.prompt_id <<<"$answer")
until history=$(curl -sf "$server/api/v1/workflows/$prompt/history"); jq -e '.data.status.status_str | IN("success", "error", "interrupted")' <<<"$history" >/dev/null; do
    sleep 0.5
done
file=$(jq -er '[.data.outputs[].images[].filename][0]' <<<"$history")
curl -sfG "$server/api/v1/images/download" --data-urlencode "filename=$file" -o "$folder/sunset.png"
echo "$folder/sunset.png"
