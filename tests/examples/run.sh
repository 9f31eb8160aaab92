#!/usr/bin/env bash
#
# Runs the examples against a real broker and worker, and the sandbox, all private. Each example runs in a directory
# of its own, with only its package installed. Python, Node and Java must run; the others run where their tools can
# be had, and a line says which did not.
#
# The programs are those in $OTP_BIN, else of the debug build. With OTP_BIN, cargo is called only if EXAMPLES_RUST=1, for
# the Rust example.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1
. tests/deploy/private.sh

readonly faults=() TRACE='Traceback|^ +at |^goroutine |Stack trace|panicked|Exception in thread'
failed=0
names=() # of the examples that run
declare -A label command
wrong() { echo "WRONG $*" && failed=1; }

# add NAME LABEL COMMAND: an example that runs, in $dir/NAME.
add() { names+=("$1") label[$1]=$2 command[$1]=$3; }
not_run() { echo "----  $1: not run: $2"; }
must_run() { die "$1 must run: ${2:-see $dir/install.log: $(tail -n 3 "$dir/install.log")}"; }

quietly() { nice timeout 180 "$@" >>"$dir/install.log" 2>&1 </dev/null; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# apt PACKAGE...: they are installed, or can be.
apt() {
    dpkg -s "$@" >/dev/null 2>&1 ||
        { command -v apt-get && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"; } \
            >>"$dir/install.log" 2>&1 </dev/null
}

clean_copy() { mkdir "$dir/$1" && cp -r "examples/$2/." "$dir/$1/"; }

set_up_python() {
    local name
    for name in pika aio-pika; do
        clean_copy "$name" python
        quietly python3 -m venv "$dir/$name/venv" || must_run Python
        quietly "$dir/$name/venv/bin/pip" install --disable-pip-version-check "$name" || must_run "Python, $name"
    done
    add pika 'Python, pika' 'venv/bin/python send_otp.py'
    add aio-pika 'Python, aio-pika' 'venv/bin/python send_otp_async.py'
}

set_up_node() {
    clean_copy node node
    (cd "$dir/node" && quietly npm install --no-audit --no-fund) || must_run Node
    add node 'Node, amqplib' 'node send-otp.js'
}

# By Maven as a user does it; where Maven Central cannot be reached, with Debian's jars.
set_up_java() {
    local jars=/usr/share/java main='-cp target/classes:lib/* SendOtp'
    clean_copy java java
    if (cd "$dir/java" && quietly mvn -q -B -Dmaven.repo.local="$dir/m2" compile dependency:copy-dependencies -DoutputDirectory=lib); then
        add java 'Java, amqp-client (Maven)' "java $main"
        return
    fi
    apt librabbitmq-client-java libgoogle-gson-java libslf4j-java || must_run Java
    mkdir -p "$dir/java/lib" && cp "$jars"/{amqp-client,gson,slf4j-api,slf4j-nop}.jar "$dir/java/lib/"
    (cd "$dir/java" && quietly javac -cp 'lib/*' -d target/classes src/main/java/SendOtp.java) || must_run Java
    add java 'Java, amqp-client (jars of Debian)' "java $main"
}

set_up_go() {
    clean_copy go go
    export GOCACHE=$dir/gocache GOFLAGS=-modcacherw GOMODCACHE=$dir/gomod
    if ! apt golang-go && ! command -v go >/dev/null; then
        not_run 'Go, amqp091-go' 'no toolchain'
    elif (cd "$dir/go" && quietly go mod tidy && quietly go build -o send-otp .); then
        add go 'Go, amqp091-go (module)' ./send-otp
    elif apt golang-github-rabbitmq-amqp091-go-dev &&
        (cd "$dir/go" && GO111MODULE=off GOPATH=/usr/share/gocode quietly go build -o send-otp main.go); then
        add go 'Go, amqp091-go (package of Debian)' ./send-otp
    else
        not_run 'Go, amqp091-go' 'the module cannot be had'
    fi
}

set_up_php() {
    clean_copy php php
    if ! apt php-cli && ! command -v php >/dev/null; then
        not_run 'PHP, php-amqplib' 'no toolchain'
    elif (cd "$dir/php" && COMPOSER_ALLOW_SUPERUSER=1 COMPOSER_HOME=$dir/composer quietly composer install --no-interaction); then
        add php 'PHP, php-amqplib (Composer)' 'php send-otp.php'
    elif apt php-amqplib; then
        mkdir -p "$dir/php/vendor" && echo "<?php require 'PhpAmqpLib/autoload.php';" >"$dir/php/vendor/autoload.php"
        add php 'PHP, php-amqplib (package of Debian)' 'php send-otp.php'
    else
        not_run 'PHP, php-amqplib' 'the package cannot be had'
    fi
}

set_up_csharp() {
    clean_copy csharp csharp
    if ! command -v dotnet >/dev/null; then
        not_run 'C#, RabbitMQ.Client' 'no toolchain'
    elif (cd "$dir/csharp" && quietly dotnet build --output built); then
        add csharp 'C#, RabbitMQ.Client' 'dotnet built/SendOtp.dll'
    else
        wrong 'C#: does not build'
    fi
}

set_up_rust() {
    if [ -n "${OTP_BIN:-}" ] && [ -z "${EXAMPLES_RUST:-}" ]; then
        not_run 'Rust, lapin' 'OTP_BIN is set, and EXAMPLES_RUST is not'
        return
    fi
    local target=$PWD/${CARGO_TARGET_DIR:-target}/examples
    mkdir "$dir/rust"
    cargo build --quiet --locked --manifest-path examples/rust/Cargo.toml --target-dir "$target" || die 'Rust must run'
    cp "$target/debug/send-otp" "$dir/rust/"
    add rust 'Rust, lapin' ./send-otp
}

# press NAME FILE PHONE ID: presses the button; what is said is in $dir/FILE, and the exit code after it.
press() {
    local code=0
    # shellcheck disable=SC2086 # a command and its arguments
    (cd "$dir/$1" && exec timeout 60 ${command[$1]} "$3" 1234 "$4") >"$dir/$2" 2>&1 </dev/null 7>&- || code=$?
    echo "exit $code" >>"$dir/$2"
}

# said NAME FILE WHAT PATTERN...: the file has a line for each pattern, and no stack trace.
said() {
    local name=$1 file=$2 what=$3 pattern
    shift 3
    for pattern in "$@"; do
        if ! grep -qE -- "$pattern" "$dir/$file" || grep -qE "$TRACE" "$dir/$file"; then
            wrong "${label[$name]}: $what: expected '$pattern', without a stack trace:"
            sed 's/^/      /' "$dir/$file"
            return
        fi
    done
    echo "ok    ${label[$name]}: $what"
}

sandbox_says() { curl -fs "127.0.0.1:$sandbox/_sandbox/$1" | python3 -c "import json, sys; print(json.load(sys.stdin)['$2'])"; }
force() { curl -fsX PUT -H 'content-type: application/json' -d "$1" "127.0.0.1:$sandbox/_sandbox/forced"; }
results() { grep -h '"JobId"' "$@" | sort -u | wc -l; }

# Two presses at once and one later are one OTP, and one result.
press_twice() {
    local name=$1 phone=$2 id=login-$1-1 before first
    before=$(sandbox_says stats accepted)
    press "$name" "$name.1" "$phone" "$id" &
    first=$!
    press "$name" "$name.2" "$phone" "$id"
    wait "$first"
    press "$name" "$name.3" "$phone" "$id"
    said "$name" "$name.1" accepted '"Outcome": ?"accepted"' '^Tell: Enter the code' '^Resend: in 60 s, with a new id' '^exit 0'
    if [ "$(results "$dir/$name".[123])" = 1 ] && [ "$(($(sandbox_says stats accepted) - before))" = 1 ]; then
        said "$name" "$name.3" 'pressed three times: the same result, one OTP' '^exit 0'
    else
        wrong "${label[$name]}: pressed three times: $(($(sandbox_says stats accepted) - before)) OTPs, and"
        cat "$dir/$name".[123]
    fi
}

# Another code too soon, and one that eSMS refuses.
not_accepted() {
    press "$1" "$1.4" "$2" "login-$1-2"
    said "$1" "$1.4" 'limited' '"limited"' '^Tell: You have asked for many' '^Resend: in [0-9]+ s, with the same id' '^exit 1'
    force '{"code": "146", "message": "Template is wrong"}'
    press "$1" "$1.5" "${2/090/091}" "login-$1-3"
    curl -fsX DELETE "127.0.0.1:$sandbox/_sandbox/forced"
    said "$1" "$1.5" 'rejected' '"rejected"' '^Tell: We cannot send' '^Resend: no' '^exit 1'
}

# all_at_once WHAT PATTERN [COMMAND]: every example at once, each to another phone; the command runs meanwhile.
all_at_once() {
    local name number=0 pids=()
    for name in "${names[@]}"; do
        number=$((number + 1))
        press "$name" "$name.bad" "093900000$number" "late-$name" &
        pids+=($!)
    done
    if [ -n "${3:-}" ]; then "$3"; fi
    wait "${pids[@]}"
    for name in "${names[@]}"; do
        said "$name" "$name.bad" "$1" "$2" 'with the same id' '^exit 1'
    done
}

queue() { "$dir/pika/venv/bin/python" tests/examples/queue.py "$@"; }

look_at_the_jobs() {
    if queue jobs "${names[@]/#/late-}"; then
        echo 'ok    every job on the queue has its id, its deadline and where to answer'
    else
        wrong 'the jobs on the queue: see above'
    fi
}

kill_the_broker() {
    queue jobs "${names[@]/#/late-}" || wrong 'the jobs on the queue: see above'
    tell_broker kill
}

python3 tests/examples/words.py || failed=1
dir=
tests/support/install-services.sh rabbitmq
bin=${OTP_BIN:-}
if [ -z "$bin" ]; then
    cargo build --locked --bins
    bin=${CARGO_TARGET_DIR:-target}/debug
fi
prepare
export TMPDIR=$dir
for language in python node java go php csharp rust; do
    "set_up_$language"
done
echo "examples: installed in $SECONDS s"
began=$SECONDS
broker=$(free_ports 6)
broker_metrics=$((broker + 3)) sandbox=$((broker + 4)) worker=$((broker + 5))
start_broker
start_sandbox
start_worker worker "$worker"

number=0
for example in "${names[@]}"; do
    number=$((number + 1))
    press_twice "$example" "090188840$number"
    not_accepted "$example" "090188840$number"
done
kill -TERM "$(pid_of worker)"
until_ok 30 'the worker has stopped' sh -c "! kill -0 $(pid_of worker)"
all_at_once 'no result in time, said' 'No result in time|no result in time' look_at_the_jobs
all_at_once 'the broker goes away during the wait, said' 'broker is away|No result in time|Without a result' kill_the_broker
all_at_once 'the broker is away, said' 'broker is away|Without a result'
tell_broker start
queue delete
all_at_once 'no queue: the job came back, said' '[Nn]ot queued'
echo "examples: $((SECONDS - began)) s after the installation"
exit "$failed"
