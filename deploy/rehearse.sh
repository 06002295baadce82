#!/usr/bin/env bash
# Try without Docker what an image installs: its extra and its pins in a plain virtual environment, without the
# development tools. The engine there has to refuse to start without a bundle, then serve, publish, answer and leave on
# SIGTERM, as an ordinary user without capabilities. The Dockerfile's other steps are not tried.
#
#   deploy/rehearse.sh [Dockerfile|Dockerfile.gpu]
#
# ENGINE  the command that makes data and a bundle: an environment with the extra train (.venv/bin/engine)
# PYTHON  the interpreter of the environment (python3); one that the image's user may execute where this is root
# PORT    of the engine (50951); its metrics are on the next one
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-Dockerfile} engine=$PWD/${ENGINE:-.venv/bin/engine} python=${PYTHON:-python3} port=${PORT:-50951}
work=$(mktemp -d) server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null || :; rm -rf "$work"' EXIT
fail() { echo "rehearse: $1" >&2; [ ! -f "${2:-}" ] || tail -n 20 "$2" >&2; exit 1; }

extra=$(sed -n 's/^ARG EXTRAS=//p' "$file" | head -n 1)
user=$(sed -n 's/^USER //p' "$file" | tail -n 1)
mapfile -t pins < <(grep -oE -- '--constraint [a-z-]+\.txt' "$file" | sort -u)
[ -n "$extra" ] && [ -n "$user" ] && [ ${#pins[@]} -gt 0 ] || fail "$file names no EXTRAS, USER or --constraint"

echo "install [$extra] with ${pins[*]}"
# A copy, so that building leaves nothing in the checkout.
mkdir "$work/src" && git ls-files -z README.md LICENSE pyproject.toml 'constraints*.txt' engine kernels clients/python \
    | xargs -0 cp --parents --no-dereference --target-directory "$work/src"
"$python" -m venv "$work/tools"
"$python" -m venv --without-pip "$work/venv"
pip() { "$work/tools/bin/pip" "$@" --quiet --disable-pip-version-check --only-binary :all:; }
cd "$work/src"
pip install --constraint constraints.txt pip setuptools
pip wheel --no-build-isolation --no-deps --wheel-dir "$work/wheel" . ./clients/python
# shellcheck disable=SC2086 # an option and its file each
pip --python "$work/venv/bin/python" install ${pins[*]} "$work"/wheel/*_client-*.whl \
    "$(echo "$work"/wheel/*_engine-*.whl)[$extra]"
cd - >/dev/null

echo "make data and a bundle"
cat >"$work/training.toml" <<'TOML'
als = {dim = 16, iterations = 5}
two_tower = {dim = 16, window = 20, layers = 1, epochs = 2, negatives = 100}
ranker = {epochs = 2, hidden = [32, 16], cross_rank = 8, max_examples = 500}
TOML
"$engine" synth "$work/data" --items 600 --users 150 >/dev/null
"$engine" train "$work/data" --out "$work/trained" --config "$work/training.toml" >/dev/null
mkdir "$work"/{bundles,kernels,run}

run=()
if [ "$(id -u)" = 0 ]; then
    chmod 755 "$work" && chown -R "$user" "$work"/{bundles,kernels,run}
    run=(setpriv "--reuid=${user%:*}" "--regid=${user#*:}" --clear-groups '--bounding-set=-all' '--inh-caps=-all' --no-new-privs)
fi
run+=(
    env -i --chdir="$work/run" "PATH=$work/venv/bin:/usr/bin:/bin" PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
    "NUMBA_CACHE_DIR=$work/kernels" "ENGINE_CONFIG=$PWD/deploy/config/engine.toml"
    "ENGINE_RULES__FILE=$PWD/deploy/config/rules.yaml" "ENGINE_BUNDLE__DIRECTORY=$work/bundles"
    ENGINE_REDIS__URL= "ENGINE_REDIS__DIRECTORY=$work/run/redis" ENGINE_KAFKA__BROKERS= "ENGINE_KAFKA__DIRECTORY=$work/run/kafka"
    ENGINE_SERVER__HOST=127.0.0.1 "ENGINE_SERVER__PORT=$port" "ENGINE_SERVER__METRICS_PORT=$((port + 1))"
    # The first answers of a busy machine must not look like those of a failing Redis.
    ENGINE_REDIS__TIMEOUT_MS=2000 ENGINE_SERVER__REQUEST_TIMEOUT_MS=4000
)
"${run[@]}" python -c 'import os, sys; sys.exit(os.getuid() == 0)' \
    || fail "the image's user cannot run $python here; PYTHON=/usr/bin/python3 may do, or run this as another user than root"
for module in torch implicit pytest jinja2 pip; do
    "${run[@]}" python -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$module') is not None)" \
        || fail "$module is in the environment that serves"
done
echo "ok: user $("${run[@]}" id -u); neither the development tools nor PyTorch are installed"

status=0; "${run[@]}" engine serve >"$work/refused.log" 2>&1 || status=$?
[ "$status" = 2 ] && tail -n 1 "$work/refused.log" | grep -q "no bundle has been published" \
    || fail "without a bundle: exit status $status" "$work/refused.log"
echo "ok: without a bundle: exit status 2, $(tail -n 1 "$work/refused.log")"

cp -R "$work/trained/." "$work/bundles"
"${run[@]}" engine serve >"$work/serve.log" 2>&1 & server=$!
for ((tries = 0; ; tries++)); do
    ! "${run[@]}" engine health >/dev/null 2>&1 || break
    kill -0 "$server" 2>/dev/null && [ "$tries" -lt 120 ] || fail "engine health never succeeded" "$work/serve.log"
    sleep 1
done
echo "ok: serving"
"${run[@]}" engine publish-users "$work/data" >"$work/publish.log" 2>&1 || fail "publish-users failed" "$work/publish.log"
"${run[@]}" python - "$work/data" "$port" >"$work/asked.log" 2>&1 <<'PYTHON' || fail "Recommend" "$work/asked.log"
import sys
import polars as pl
from engine_client import RecommendationClient
from engine_client.v1 import recommendation_pb2 as pb
# Somebody with a long history, so that every model takes part.
user = pl.read_parquet(f"{sys.argv[1]}/interactions.parquet")["user_id"].value_counts(sort=True)["user_id"][0]
with RecommendationClient(f"127.0.0.1:{sys.argv[2]}", timeout_s=5.0) as client:
    response = client.recommend(user, "home", item_count=50)
said = f"{len(response.items)} items, {pb.Strategy.Name(response.strategy)}, degraded: {list(response.degraded_reasons)}"
if len(response.items) != 50 or response.strategy != pb.STRATEGY_PERSONALIZED or response.degraded_reasons:
    sys.exit(said)
print(said)
PYTHON
echo "ok: $(tail -n 1 "$work/publish.log"); Recommend: $(cat "$work/asked.log")"
kill -TERM "$server"
status=0; wait "$server" || status=$?
server=
[ "$status" = 0 ] && ! grep -q telemetry "$work/serve.log" || fail "after SIGTERM: exit status $status" "$work/serve.log"
echo "ok: left with exit status 0 after SIGTERM"
