# One image for every part of a pipeline; the command says which part a container is.

FROM python:3.13-slim AS dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PYTHON=/opt/braidstream/bin/python
RUN python -m venv --without-pip /opt/braidstream
COPY requirements.lock /src/
# The packages' own tests are a tenth of their size.
RUN pip install --require-hashes --only-binary :all: -r /src/requirements.lock \
 && rm -r /opt/braidstream/lib/python3.13/site-packages/onnx/backend/test \
 && find /opt/braidstream -type d -name tests -prune -exec rm -r {} +

FROM dependencies AS project
COPY . /src
RUN pip install --no-index --no-deps --no-build-isolation --prefix /project /src

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home --home-dir /tmp app && install -d -o app /app /app/models /moderation/models
COPY --from=dependencies /opt/braidstream /opt/braidstream
COPY --from=project /project /opt/braidstream
# The example is a project of its own, as a user's would be: its parts run in its folder.
COPY examples/moderation /moderation
# ONNX Runtime reports its use to its makers, unless it is told not to.
ENV PATH=/opt/braidstream/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LOG_FORMAT=json \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /app
USER app
CMD ["braidstream", "--help"]
