# Five small images from what `cargo xtask images` gathers in target/images: static programs and a static busybox. There is
# no base image, so that nothing has to be pulled:
#
#   cargo xtask images        builds all five
#
#   air-manager   airx and air-runner, with a shell for tasks: the process backend
#   air-runner    air-runner and a shell, for backends that start one container a task
#   air-shell     a shell and nothing else, in which tests run tasks of the Docker backend
#   air-pause     what holds the namespaces of a pod, for the Kubernetes of the tests
#   air-nats      nats-server, for compose.yaml where the official image cannot be pulled
#
# To have more tools for tasks, build an image of your own from another base: the programs are static, and do not mind.
#
#   FROM debian:bookworm-slim
#   COPY --from=air-manager /usr/local/bin/ /usr/local/bin/

FROM scratch AS shell
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -m 1777 /tmp
ENV PATH=/usr/local/bin:/usr/bin:/bin

FROM shell AS pause
ENTRYPOINT ["/bin/sleep", "2147483647"]

FROM shell AS runner
COPY air-runner /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/air-runner"]

FROM shell AS manager
COPY airx air-runner /usr/local/bin/
# Not root. Tasks run as the same user: the manager is as trusted as they are.
USER 65532:65532
ENV HOME=/tmp
WORKDIR /tmp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/airx"]
CMD ["manager"]

FROM shell AS nats
COPY nats-server /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/nats-server"]
