# The coordinator: no torch, no images, no patient data. Build from the checkout's root:
#
#     docker build -f deploy/coordinator.Dockerfile -t fedcervix-coordinator .
# Packages come from the index that pip is configured to use. Pass your own configuration as a build secret, which
# leaves no trace in the image:  docker build --secret id=pip,src=pip.conf ...
# Versions and hashes of all packages stand in deploy/constraints: another index cannot bring other files.
ARG PYTHON=3.12
# A tag can be moved to another image at any time. To use exactly the image that you have checked, give its digest:
#     docker buildx imagetools inspect python:3.12-slim      (the line "Digest:")
#     docker build --build-arg BASE=python:3.12-slim@sha256:... ...
ARG BASE=python:${PYTHON}-slim

FROM ${BASE} AS build
WORKDIR /source
COPY . .
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/fedcervix \
    && /opt/fedcervix/bin/pip install --no-cache-dir --require-hashes -r deploy/constraints/coordinator.txt \
    && /opt/fedcervix/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl \
    && /opt/fedcervix/bin/coordinator --version

FROM ${BASE}
# The number is fixed, so that you can give it a host folder (chown 10001:10001).
RUN groupadd --gid 10001 fedcervix \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/fedcervix \
        --shell /usr/sbin/nologin fedcervix \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/fedcervix
COPY --from=build /opt/fedcervix /opt/fedcervix
ENV PATH=/opt/fedcervix/bin:$PATH \
    HOME=/var/lib/fedcervix \
    FEDCERVIX_COORDINATOR_HOME=/var/lib/fedcervix \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/fedcervix
VOLUME /var/lib/fedcervix
EXPOSE 8443
STOPSIGNAL SIGTERM
# Healthy: it answers its operator over TLS, and has no trouble such as a full disk.
# If only the journal could be read, `trouble` says so.
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s --retries=3 \
    CMD coordinator --home /var/lib/fedcervix status --json | grep --quiet '"trouble": ""'
ENTRYPOINT ["coordinator"]
# Continues the unfinished run. It never begins a run: a person must do that (`begin --mode ...`).
CMD ["start"]
