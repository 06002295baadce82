# The engine on CPUs. One image for every role: serve (the default), process, publish-users, topics create.
#
#   docker build -t personalization-engine .
#   docker build -t personalization-engine-train --build-arg EXTRAS=cpu,train .
#
# docs/deploy.md says what to mount where. Dockerfile.gpu differs in its extra, its pins and its environment only.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# What of the project's extras goes in; serving never needs `train`, which brings PyTorch.
ARG EXTRAS=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt ./
COPY clients/python/pyproject.toml clients/python/
# Tools stay in an environment of their own: what is served has no pip, and nothing is compiled from source.
RUN python -m venv /opt/tools \
    && /opt/tools/bin/pip install --only-binary :all: --constraint constraints.txt pip setuptools \
    && python -m venv --without-pip /opt/engine
# The dependencies, by way of empty projects: a change of code leaves this layer as it is.
RUN mkdir engine clients/python/engine_client && touch README.md LICENSE engine/__init__.py \
        clients/python/README.md clients/python/engine_client/__init__.py \
    && /opt/tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /tmp/empty . ./clients/python \
    && /opt/tools/bin/pip --python /opt/engine/bin/python install --only-binary :all: --constraint constraints.txt \
        /tmp/empty/*_client-*.whl "$(echo /tmp/empty/*_engine-*.whl)[${EXTRAS}]" \
    && rm -rf build ./*.egg-info engine clients /tmp/empty
COPY README.md LICENSE ./
# engine/kernels is a link to the folder that comes after it.
COPY engine engine
COPY kernels kernels
COPY clients/python clients/python
RUN /opt/tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /tmp/wheel . ./clients/python \
    && /opt/tools/bin/pip --python /opt/engine/bin/python install --no-deps --force-reinstall /tmp/wheel/*.whl \
    && rm -rf build ./*.egg-info /tmp/wheel
# Beside what trains: `engine synth` for a first data set, and what measures.
COPY bench bench
RUN case "${EXTRAS}" in *train*) \
        /opt/tools/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /tmp/wheel ./bench \
        && /opt/tools/bin/pip --python /opt/engine/bin/python install --only-binary :all: --constraint constraints.txt \
            /tmp/wheel/*.whl \
        && rm -rf /tmp/wheel ;; \
    esac
# Compiled kernels are for the processor that they were compiled on; on another one the first start compiles them anew.
ENV NUMBA_CACHE_DIR=/var/cache/engine
WORKDIR /
# Importing compiles; what serving calls is called once, too. The two at the front are the stream processor's.
RUN /opt/engine/bin/python -c "import engine.kernels.event_scan, engine.kernels.live_state; from engine.kernels.warmup import warm_up; warm_up()"

FROM ${PYTHON_IMAGE}
ARG EXTRAS=cpu
# One of the wheels that train brings takes OpenMP's runtime from the system; serving needs nothing from there.
# hadolint ignore=DL3008
RUN case "${EXTRAS}" in *train*) \
        apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* ;; \
    esac
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="personalization-engine" \
      org.opencontainers.image.description="A gRPC personalization engine" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 engine \
    && useradd --uid 10001 --gid engine --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin engine \
    && install -d -o engine -g engine /srv/bundles /srv/data
COPY --from=build /opt/engine /opt/engine
# Numba wants to write here, also where it finds everything compiled.
COPY --from=build --chown=10001:10001 /var/cache/engine /var/cache/engine
COPY deploy/config/engine.toml deploy/config/rules.yaml /etc/engine/
ENV PATH=/opt/engine/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/var/cache/engine \
    ORT_DISABLE_TELEMETRY=1 \
    ENGINE_CONFIG=/etc/engine/engine.toml
WORKDIR /srv
USER 10001:10001
EXPOSE 50051 9090
# The engine drains on it: up to server.drain_s for what is in flight, then 15 s to leave.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["engine", "health"]
ENTRYPOINT ["engine"]
CMD ["serve"]
