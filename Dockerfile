# docs/install.md, "Container", says how to build and run this image.
FROM debian:bookworm-slim

# g++ and Python's headers: Triton and torch.compile compile at run time. tini passes SIGTERM on.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates g++ python3.11-dev python3.11-venv tini \
    && rm -rf /var/lib/apt/lists/*

# Any user may write here, so that --user needs no user of that number in the image.
RUN useradd --uid 1000 --create-home mpvit \
    && mkdir /data /weights /work && chmod 1777 /home/mpvit /data /weights /work

ENV VIRTUAL_ENV=/opt/venv
ENV PATH=/opt/venv/bin:$PATH
RUN python3.11 -m venv /opt/venv && pip install --no-cache-dir uv==0.13.9

# cuda: the build of torch in requirements.txt. Or cpu: PyTorch's own index has that build.
ARG TORCH=cuda

# The packages, in a layer of their own that lasts until one of these files changes: setup.py reads
# a version and a README, and is given empty ones.
WORKDIR /tmp/mpvit
COPY setup.py pyproject.toml requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/uv \
    mkdir mpvit && echo "__version__ = '0'" > mpvit/__init__.py && touch README.md \
    && if [ "$TORCH" != cuda ]; then export UV_TORCH_BACKEND="$TORCH"; fi \
    && uv pip install --compile-bytecode --link-mode copy --constraints requirements.txt \
        -r setup.py --extra demo --extra export --extra int8 --extra app --extra pretrain --extra tracking

COPY . .
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --compile-bytecode --link-mode copy --no-build-isolation --no-deps . \
    && rm -rf /tmp/mpvit

# Caches of compiled kernels go to the home, downloads beside the weights that the user supplies.
ENV HOME=/home/mpvit USER=mpvit
ENV MPVIT_WEIGHTS=/weights TORCH_HOME=/weights HF_HOME=/weights/huggingface
VOLUME ["/data", "/weights", "/work"]
WORKDIR /work
USER 1000

ENTRYPOINT ["tini", "--", "mpvit"]
CMD ["--help"]
