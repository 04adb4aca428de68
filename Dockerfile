# One image for API (`serve`, the default), `worker` and `migrate`.
FROM python:3.11-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=/src/constraints.txt
COPY constraints.txt ./
RUN python -m venv --without-pip /opt/iidq && pip install hatchling
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY iidq iidq
RUN python -m hatchling build -t wheel -d /wheels
RUN pip --python /opt/iidq/bin/python install "$(echo /wheels/iidq-*.whl)[redis]"

FROM python:3.11-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin iidq
COPY --from=build /opt/iidq /opt/iidq
ENV PATH=/opt/iidq/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 PORT=3001
USER iidq
EXPOSE 3001
# The base image has no curl. Workers listen on no port: compose.yaml gives them a check of their own.
HEALTHCHECK --interval=10s --timeout=6s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/readyz\", timeout=5)"]
ENTRYPOINT ["iidq"]
CMD ["serve"]
