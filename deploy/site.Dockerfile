# A hospital's site agent: the images stay on this machine. Build from the checkout's root:
#
#     docker build -f deploy/site.Dockerfile -t fedcervix-site .
#
# Versions and hashes of all packages stand in deploy/constraints. The usual profile, site-cuda, brings CUDA and also runs
# without a GPU. A much smaller image without CUDA:
#
#     docker build -f deploy/site.Dockerfile -t fedcervix-site --build-arg PROFILE=site-cpu \
#         --build-arg TORCH="torch==2.14.1+cpu torchvision==0.29.1+cpu" --secret id=pip,src=pip.conf .
#
# where pip.conf names the package index of torch's CPU builds as extra-index-url (torch's installation page gives it).
# The secret leaves no trace in the image.
ARG PYTHON=3.12
# A tag can be moved to another image at any time. To use exactly the image that you have checked, give its digest:
#     docker buildx imagetools inspect python:3.12-slim      (the line "Digest:")
#     docker build --build-arg BASE=python:3.12-slim@sha256:... ...
ARG BASE=python:${PYTHON}-slim

FROM ${BASE} AS build
ARG PROFILE=site-cuda
ARG TORCH=""
WORKDIR /source
COPY . .
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/fedcervix \
    && /opt/fedcervix/bin/pip install --no-cache-dir --require-hashes -r deploy/constraints/${PROFILE}.txt \
    && { [ -z "${TORCH}" ] || /opt/fedcervix/bin/pip install --no-cache-dir --no-deps ${TORCH}; } \
    && /opt/fedcervix/bin/pip install --no-cache-dir --no-index --no-deps /wheels/*.whl \
    && /opt/fedcervix/bin/pip check \
    && /opt/fedcervix/bin/site-agent --version

FROM ${BASE}
# The number is fixed, so that you can give it a host folder (chown 10001:10001).
RUN groupadd --gid 10001 fedcervix \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/fedcervix \
        --shell /usr/sbin/nologin fedcervix \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/fedcervix \
    && install --directory /data
COPY --from=build /opt/fedcervix /opt/fedcervix
# With NVIDIA's container toolkit the last two give access to the GPU; without it they have no effect.
ENV PATH=/opt/fedcervix/bin:$PATH \
    HOME=/var/lib/fedcervix \
    FEDCERVIX_SITE_HOME=/var/lib/fedcervix \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /var/lib/fedcervix
# The home folder. The images are mounted at /data, read-only: nothing is ever written there.
VOLUME /var/lib/fedcervix
STOPSIGNAL SIGTERM
# No port: a site only opens connections. No health check: the coordinator shows the state of this site
# (`coordinator status`), and `site-agent doctor` tests the whole path.
HEALTHCHECK NONE
ENTRYPOINT ["site-agent"]
