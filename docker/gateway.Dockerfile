# The gateway alone, its hot path compiled: no torch, no ray, no vllm, no compiler; runs as nobody in particular.
# docker build -f docker/gateway.Dockerfile -t daemun-gateway .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN scripts/setup gateway /opt/daemun --copy && scripts/compile /opt/daemun --must

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/daemun daemun
COPY --from=build /opt/daemun /opt/daemun
USER 10001
WORKDIR /var/lib/daemun
ENV PATH=/opt/daemun/bin:$PATH PYTHONUNBUFFERED=1 DAEMUN_COMPILED=must DAEMUN_STATE_DIR=/var/lib/daemun/state DAEMUN_GATEWAY__HOST=0.0.0.0
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/live', timeout=3)"]
ENTRYPOINT ["daemun", "gateway"]
