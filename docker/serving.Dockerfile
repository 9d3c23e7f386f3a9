# Ray Serve, vLLM and the catalogue, for one machine (`daemun serve`) and for a KubeRay worker alike.
# docker build -f docker/serving.Dockerfile --build-arg DEVICE=cpu -t daemun-serving .      DEVICE: cpu | gpu
FROM python:3.11-slim-bookworm AS build
ARG DEVICE=cpu
WORKDIR /src
COPY . .
RUN scripts/setup serving-$DEVICE /opt/daemun --copy

FROM python:3.11-slim-bookworm
ARG DEVICE=cpu
COPY scripts/debian-packages /usr/local/bin/debian-packages
RUN debian-packages serving-$DEVICE && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/daemun daemun
COPY --from=build /opt/daemun /opt/daemun
USER 10001
WORKDIR /var/lib/daemun
ENV PATH=/opt/daemun/bin:$PATH PYTHONUNBUFFERED=1 DAEMUN_STATE_DIR=/var/lib/daemun/state
EXPOSE 8265 30000-31000
ENTRYPOINT ["daemun", "serve"]
