# A container of `mangakd serve` for a GGUF: llama.cpp's server with our service in front, no torch. From the repository root:
#
#   docker build -f deploy/service/gguf.Dockerfile --build-arg MODEL=export/best -t mangakd-language .
#   docker run --rm -p 8000:8000 mangakd-language --threads 4 --slots 4
#
# The wheel of xllamacpp on PyPI computes on CPUs. It needs OpenMP and the C++ library of the system.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 libstdc++6 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt numpy tokenizers xllamacpp fastapi uvicorn httpx
COPY pyproject.toml setup.py README.md ./
COPY mangakd mangakd
COPY conf conf
RUN pip install --no-cache-dir --no-deps .
ARG MODEL=export/best
COPY --chown=10001:10001 ${MODEL} /model
USER 10001:10001
ENV PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --start-period=300s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["mangakd", "serve", "/model", "--host", "0.0.0.0"]
