# Repairs the stand-in for apache/kafka:4.3.1, which differs from the official image in two ways that show here:
# its default configuration can be read-only for its own user, and its start script fails on storage that is formatted.
FROM apache/kafka:4.3.1
USER root
RUN chmod u+w,a+r /etc/kafka/docker/* \
 && sed -i 's#--final-configs-dir /opt/kafka/config.*$#--final-configs-dir /opt/kafka/config 2>\&1 | tee /tmp/setup.log || grep -q "already formatted" /tmp/setup.log#' /etc/kafka/docker/run
USER appuser
