# The static binary and the CA certificates, and nothing else. `make image` puts both into the build context.
FROM scratch
COPY imagecache /imagecache
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/imagecache"]
