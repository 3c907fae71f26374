# The speech server. Built in one image, run in another one that holds no compiler.
#
#   docker build -t csm-ggml .
#   docker run --read-only --tmpfs /tmp -p 8080:8080 -e CSM_GGML_API_KEYS=... csm-ggml
#
# The wheel is the release wheel: one CPU backend per instruction set, chosen when it starts.
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN pip wheel . --no-deps --wheel-dir /wheels \
    --config-settings=cmake.define.CSM_RELEASE_WHEEL=ON
# The file and not the name: nothing of that name on an index may take its place.
RUN pip wheel --wheel-dir /wheels "$(ls /wheels/csm_ggml-*.whl)[server,wyoming]"

FROM python:3.12-slim-bookworm
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels "csm-ggml[server,wyoming]" \
    && useradd --uid 10001 --home-dir /models --no-create-home --shell /usr/sbin/nologin csm \
    && install -d -o csm -g csm /models /voices
USER csm
ENV HF_HOME=/models XDG_CACHE_HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME ["/models", "/voices"]
EXPOSE 8080 10200
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/ready', timeout=4)"]
# Open beyond the container, so a key is needed: CSM_GGML_API_KEYS, or --api-key-file.
ENTRYPOINT ["csm-ggml", "serve", "--host", "0.0.0.0", "--port", "8080", "--voices", "/voices"]
CMD ["--model", "demo"]
