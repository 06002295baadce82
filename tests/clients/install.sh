#!/usr/bin/env bash
# Fetches what the tests of other languages need, as far as a language's toolchain is there, so that the tests
# themselves need no network: tests/clients/install.sh INTO
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/bin"
into=$(cd "$1" && pwd)

if command -v go > /dev/null; then
  echo "Go: code generators, grpcurl and ghz (two minutes the first time)"
  export GOBIN="$into/bin"
  go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
  go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
  go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
  go install github.com/bojand/ghz/cmd/ghz@v0.93.0
  (cd "$here/go" && go mod download)
fi

if command -v npm > /dev/null; then
  echo "TypeScript: compiler, buf and its code generator"
  rm -rf "$into/typescript"
  cp -r "$here/typescript" "$into/typescript"
  (cd "$into/typescript" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
fi

if command -v mvn > /dev/null; then
  echo "Java: protoc, its gRPC plugin and the libraries (two minutes the first time)"
  rm -rf "$into/java"
  cp -r "$here/java" "$into/java"
  # Maven learns what it needs by doing it; without arguments the client does nothing.
  (cd "$into/java" && mvn --batch-mode --quiet "-Dprotos=$here/../../proto" compile exec:java)
fi
