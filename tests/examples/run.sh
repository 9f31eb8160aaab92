#!/usr/bin/env bash
#
# Runs the examples against a real broker and worker, and the sandbox, all private. Each example runs in a directory
# of its own, with only its package installed. Python, Node and Java must run; the others run where their tools can
# be had, and a line says which did not.
#
# The programs are those in $OTP_BIN, else of the debug build. With OTP_BIN, cargo is called only if EXAMPLES_RUST=1, for
# the Rust example. UPDATE_GOLDEN=1 writes the files of tests/examples/golden instead of comparing them.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1
. tests/deploy/private.sh

readonly faults=() TRACE='Traceback|^ +at |^goroutine |Stack trace|panicked|Exception in thread'
readonly all=(pika aio-pika node java go php csharp rust)
failed=0
setting_up=() # processes
names=() # of the examples that run
declare -A label command
wrong() { echo "WRONG $*" && failed=1; }

# For the functions set_up_…: they run at the same time, each in a shell of its own, where $example is the name.
add() { printf '%s\t%s\n' "$1" "$2" >"$dir/$example.runs"; } # add LABEL COMMAND: it runs, in $dir/$example
not_run() { echo "----  $1: not run: $2"; }
must_run() { die "$1 must run: $(tail -n 5 "$dir/$example.install.log" 2>&1)"; }

clean_copy() { mkdir "$dir/$example" && cp -r "examples/$1/." "$dir/$example/" && cd "$dir/$example"; }
quietly() { nice timeout 300 "$@" >>"$dir/$example.install.log" 2>&1 </dev/null; }
as_root() { if [ "$(id -u)" = 0 ]; then quietly "$@"; else quietly sudo -n "$@"; fi; }
apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=200 "$@"; }

# apt PACKAGE...: they are installed, or can be. A new machine has not read apt's lists yet.
apt() {
    dpkg -s "$@" >/dev/null 2>&1 && return
    command -v apt-get >/dev/null || return
    {
        flock 8
        apt_get install -y --no-install-recommends "$@" ||
            { apt_get update && apt_get install -y --no-install-recommends "$@"; }
    } 8>"$dir/apt.lock"
}

# has PROGRAM PACKAGE...: it is there, or apt brings it.
has() { command -v "$1" >/dev/null || apt "${@:2}"; }

# venv DIRECTORY PACKAGE...
venv() {
    python3 -c 'import ensurepip' 2>/dev/null || apt python3-venv
    quietly python3 -m venv "$1" && quietly "$1/bin/pip" install --disable-pip-version-check "${@:2}"
}

# What this script itself asks the broker with.
set_up_tools() { venv "$dir/tools" pika jsonschema==4.26.0 || must_run 'What looks at the queue'; }

set_up_pika() {
    clean_copy python
    venv venv pika || must_run 'Python, pika'
    add 'Python, pika' 'venv/bin/python send_otp.py'
}

set_up_aio-pika() {
    clean_copy python
    venv venv aio-pika || must_run 'Python, aio-pika'
    add 'Python, aio-pika' 'venv/bin/python send_otp_async.py'
}

set_up_node() {
    clean_copy node
    has npm nodejs npm && quietly npm install --no-audit --no-fund --cache "$dir/npm" || must_run Node
    add 'Node, amqplib' 'node send-otp.js'
}

# By Maven as a user does it; where Maven Central cannot be reached, with Debian's jars.
set_up_java() {
    local jars=/usr/share/java main='-cp target/classes:lib/* SendOtp'
    clean_copy java
    has javac default-jdk-headless || must_run Java
    if quietly mvn -q -B -Dmaven.repo.local="$dir/m2" compile dependency:copy-dependencies -DoutputDirectory=lib; then
        add 'Java, amqp-client (Maven)' "java $main"
        return
    fi
    apt librabbitmq-client-java libgoogle-gson-java libslf4j-java || must_run Java
    mkdir -p lib && cp "$jars"/{amqp-client,gson,slf4j-api,slf4j-nop}.jar lib/
    quietly javac -cp 'lib/*' -d target/classes src/main/java/SendOtp.java || must_run Java
    add 'Java, amqp-client (jars of Debian)' "java $main"
}

set_up_go() {
    clean_copy go
    export GOCACHE=$dir/gocache GOFLAGS=-modcacherw GOMODCACHE=$dir/gomod
    if ! has go golang-go; then
        not_run 'Go, amqp091-go' 'no toolchain'
    elif quietly go mod tidy && quietly go build -o send-otp .; then
        add 'Go, amqp091-go (module)' ./send-otp
    elif apt golang-github-rabbitmq-amqp091-go-dev &&
        GO111MODULE=off GOPATH=/usr/share/gocode quietly go build -o send-otp main.go; then
        add 'Go, amqp091-go (package of Debian)' ./send-otp
    else
        not_run 'Go, amqp091-go' 'the module cannot be had'
    fi
}

set_up_php() {
    clean_copy php
    if ! has php php-cli; then
        not_run 'PHP, php-amqplib' 'no toolchain'
    elif COMPOSER_ALLOW_SUPERUSER=1 COMPOSER_HOME=$dir/composer quietly composer install --no-interaction; then
        add 'PHP, php-amqplib (Composer)' 'php send-otp.php'
    elif apt php-amqplib; then
        mkdir -p vendor && echo "<?php require 'PhpAmqpLib/autoload.php';" >vendor/autoload.php
        add 'PHP, php-amqplib (package of Debian)' 'php send-otp.php'
    else
        not_run 'PHP, php-amqplib' 'the package cannot be had'
    fi
}

set_up_csharp() {
    export DOTNET_CLI_HOME=$dir/dotnet NUGET_PACKAGES=$dir/nuget DOTNET_CLI_TELEMETRY_OPTOUT=1
    clean_copy csharp
    if ! command -v dotnet >/dev/null; then
        not_run 'C#, RabbitMQ.Client' 'no toolchain'
    elif quietly dotnet build --disable-build-servers --output built; then
        add 'C#, RabbitMQ.Client' 'dotnet built/SendOtp.dll'
    else
        must_run C#
    fi
}

set_up_rust() {
    if [ -n "${OTP_BIN:-}" ] && [ -z "${EXAMPLES_RUST:-}" ]; then
        not_run 'Rust, lapin' 'OTP_BIN is set, and EXAMPLES_RUST is not'
        return
    fi
    local target
    target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/examples
    mkdir "$dir/rust"
    cargo build --quiet --locked --manifest-path examples/rust/Cargo.toml --target-dir "$target" || die 'Rust must run'
    cp "$target/debug/send-otp" "$dir/rust/"
    add 'Rust, lapin' ./send-otp
}

begin_to_set_up() {
    local example
    for example in tools "${all[@]}"; do
        (exec 7>&- && "set_up_$example") &
        setting_up+=($!)
    done
}

end_setting_up() {
    local example pid
    for pid in "${setting_up[@]}"; do wait "$pid" || exit 1; done
    for example in "${all[@]}"; do
        [ -e "$dir/$example.runs" ] || continue
        names+=("$example")
        IFS=$'\t' read -r "label[$example]" "command[$example]" <"$dir/$example.runs"
    done
}

# press NAME FILE PHONE ID: presses the button; what is said is in $dir/FILE, and the exit code after it.
press() {
    local code=0
    # shellcheck disable=SC2086 # a command and its arguments
    (cd "$dir/$1" && exec timeout 60 ${command[$1]} "$3" 1234 "$4") >"$dir/$2" 2>&1 </dev/null 7>&- || code=$?
    echo "exit $code" >>"$dir/$2"
}

# all_press FILE PHONE ID [COMMAND]: every example at once, each to another phone; the command runs meanwhile.
all_press() {
    local name number=0 pids=()
    for name in "${names[@]}"; do
        number=$((number + 1))
        press "$name" "$name.$1" "$2$number" "$3-$name" &
        pids+=($!)
    done
    if [ -n "${4:-}" ]; then "$4"; fi
    wait "${pids[@]}"
}

# said FILE WHAT PATTERN...: what every example said has a line for each pattern, and no stack trace.
said() {
    local file=$1 what=$2 name pattern
    shift 2
    for name in "${names[@]}"; do
        for pattern in "$@"; do
            if ! grep -qE -- "$pattern" "$dir/$name.$file" || grep -qE "$TRACE" "$dir/$name.$file"; then
                wrong "${label[$name]}: $what: expected '$pattern', without a stack trace:"
                sed 's/^/      /' "$dir/$name.$file"
                continue 2
            fi
        done
        echo "ok    ${label[$name]}: $what"
    done
}

sandbox() { curl -fsS "127.0.0.1:$sandbox/_sandbox/$1" "${@:2}"; }
otps_to() { sandbox accepted | python3 -c 'import json, sys; print(sum(p["accepted"] for p in json.load(sys.stdin) if p["phone"] == sys.argv[1]))' "$1"; }
results() { grep -h '"JobId"' "$@" | sort -u | wc -l; }
queue() { "$dir/tools/bin/python" tests/examples/queue.py "$@"; }
golden() { "$dir/tools/bin/python" tests/examples/golden.py "$@"; }
second_press() { all_press second 090188840 first; }

# Two presses at once and one later are one OTP, and one result.
press_three_times() {
    local name number=0 otps
    all_press first 090188840 first second_press
    all_press third 090188840 first
    said first accepted '"Outcome": ?"accepted"' '^Tell: Enter the code' '^Resend: in 60 s, with a new id' '^exit 0'
    said third 'accepted again' '"Outcome": ?"accepted"' '^exit 0'
    for name in "${names[@]}"; do
        number=$((number + 1))
        otps=$(otps_to "090188840$number")
        if [ "$(results "$dir/$name".{first,second,third})" = 1 ] && [ "$otps" = 1 ]; then
            echo "ok    ${label[$name]}: pressed three times: the same result, one OTP"
        else
            wrong "${label[$name]}: pressed three times: $otps OTPs, and"
            cat "$dir/$name".{first,second,third}
        fi
    done
}

# Another code too soon, and one that eSMS refuses.
not_accepted() {
    all_press soon 090188840 soon
    said soon limited '"limited"' '^Tell: You have asked for many' '^Resend: in [0-9]+ s, with the same id' '^exit 1'
    sandbox forced -X PUT -H 'content-type: application/json' -d '{"code": "146", "message": "Template is wrong"}'
    all_press refused 091188840 refused
    sandbox forced -X DELETE
    said refused rejected '"rejected"' '^Tell: We cannot send' '^Resend: no' '^exit 1'
}

# In another virtual host, where no worker runs. The wait is 35 s.
without_a_worker() {
    export AMQP_URL=$idle
    all_press late 093900000 late see_the_jobs
}

see_the_jobs() { queue jobs "${names[@]/#/late-}"; }

# Not before the others have waited for long enough.
kill_the_broker() {
    queue jobs "${names[@]/#/away-}" || wrong 'the jobs are not on the queue'
    wait "$waiting" || wrong 'the jobs are not on the queue'
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
begin_to_set_up
broker=$(free_ports 6)
broker_metrics=$((broker + 3)) sandbox=$((broker + 4)) worker=$((broker + 5))
start_broker
start_sandbox
start_worker worker "$worker"
ctl() { tests/support/private-rabbitmq.sh "$broker" ctl "$@" >/dev/null; }
idle=amqp://guest:guest@127.0.0.1:$broker/idle
ctl add_vhost idle
ctl set_permissions --vhost idle guest '.*' '.*' '.*'
AMQP_URL=$idle "$bin/esms-otp-worker" topology apply >/dev/null
ctl trace_on
end_setting_up
echo "examples: installed in $SECONDS s"
began=$SECONDS
golden tap

without_a_worker 7>&- &
waiting=$!
press_three_times
not_accepted
golden compare "${names[@]}" || failed=1
kill -TERM "$(pid_of worker)"
until_ok 30 'the worker has stopped' sh -c "! kill -0 $(pid_of worker)"
all_press away 093900000 away kill_the_broker
said late 'no result in time, said' 'No result in time|no result in time' 'with the same id' '^exit 1'
said away 'the broker goes away during the wait, said' 'broker is away|No result in time|Without a result' 'with the same id' '^exit 1'
all_press gone 093900000 gone
said gone 'the broker is away, said' 'broker is away|Without a result' 'with the same id' '^exit 1'
tell_broker start
queue delete
all_press back 093900000 back
said back 'no queue: the job came back, said' '[Nn]ot queued' 'with the same id' '^exit 1'
echo "examples: $((SECONDS - began)) s after the installation"
exit "$failed"
