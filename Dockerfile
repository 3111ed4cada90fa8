# Two small images, each with static programs and nothing else:
#
#   docker build --target manager -t air-manager .     airx and air-runner, with a shell for tasks: the process backend
#   docker build --target runner  -t air-runner  .     air-runner alone, for backends that start one container a task
#
# The base images are arguments, so that another registry or an image of your own can stand in:
#   docker build --build-arg BUILD_IMAGE=registry.example/rust:1.95 --build-arg SHELL_IMAGE=registry.example/busybox:musl …

ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG SHELL_IMAGE=busybox:1.37-musl

# --- build: static programs of the gnu target, so that they run on any image, or on none
FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# gcc is in the official image; the cryptography of the NATS client has C and assembly in it.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY protocol protocol
COPY nats nats
COPY runner runner
COPY manager manager
COPY cli cli
COPY tests tests
COPY xtask xtask
COPY bench bench
COPY examples/audit examples/audit
# rust-toolchain.toml stays outside: the image has that version, and needs none of the components named there.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    target="$(rustc -vV | sed -n 's/^host: //p')" && \
    cargo build --locked --release --target "$target" -p airx -p air-runner && \
    mkdir -p /out && cp "target/$target/release/airx" "target/$target/release/air-runner" /out/ && \
    mkdir -p /out/tmp && chmod 1777 /out/tmp

# --- runner: one program on an empty image; tasks that are a program of their own image copy it from here
FROM scratch AS runner
COPY --from=build /out/air-runner /usr/local/bin/air-runner
COPY --from=build /out/tmp /tmp
ENV PATH=/usr/local/bin:/usr/bin:/bin
ENTRYPOINT ["/usr/local/bin/air-runner"]

# --- manager: airx and air-runner, and the shell and small tools that `run` tasks expect. To have more tools, take
# --build-arg SHELL_IMAGE=debian:bookworm-slim: the programs are static, and do not mind.
FROM ${SHELL_IMAGE} AS manager
COPY --from=build /out/airx /out/air-runner /usr/local/bin/
ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
# Not root. Tasks run as the same user: the manager is as trusted as they are.
USER 65532:65532
ENV HOME=/tmp
WORKDIR /tmp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/airx"]
CMD ["manager"]
