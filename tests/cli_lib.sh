# cli_lib.sh - functions shared by cli.sh and cli_*.sh; POSIX sh, sourced.
#
# The script that sources it sets PROGRAM, DATA and TMP (see cli_begin).  A check runs one command
# and looks at the exit code and at what came out:
#
#     check "unknown verb" 2 "did you mean 'train'" "$PROGRAM" trian
#     piped "from a pipe"  0 "" 'printf "..." | "$PROGRAM" import --hits - ...'
#
# stdout and stderr of the last command are in $TMP/out and $TMP/err.  The pattern (fixed text,
# not a regular expression) may be in either; "" expects nothing in particular.

passed=0
failed=0
skipped=0

# cli_begin PROGRAM TESTDATA TMPDIR NAME: a fresh folder $TMP below TMPDIR
cli_begin()
{
    case $1 in /*) PROGRAM=$1 ;; *) PROGRAM=$PWD/$1 ;; esac
    case $2 in /*) DATA=$2 ;; *) DATA=$PWD/$2 ;; esac
    case $3 in /*) TMP=$3 ;; *) TMP=$PWD/$3 ;; esac
    CLI_NAME=$4
    TMP=$TMP/$4
    chmod -R u+w "$TMP" 2>/dev/null
    rm -rf "$TMP"
    mkdir -p "$TMP" || exit 1
    if [ ! -x "$PROGRAM" ]; then
        echo "$CLI_NAME: no program $PROGRAM"
        exit 1
    fi
    # Programs built with AddressSanitizer must not turn a leak into another exit code silently.
    ASAN_OPTIONS=${ASAN_OPTIONS:-exitcode=99}
    export ASAN_OPTIONS
}

pass() { passed=$((passed + 1)); }

# fail WHAT DETAIL...
fail()
{
    failed=$((failed + 1))
    echo "FAILED: $1"
    shift
    for cli_line in "$@"; do echo "    $cli_line"; done
    echo "    stderr: $(head -c 500 "$TMP/err" 2>/dev/null | head -n 5)"
}

skip()
{
    skipped=$((skipped + 1))
    echo "SKIPPED: $1"
}

# verdict WHAT CODE GOT PATTERN COMMAND-TEXT
verdict()
{
    if [ "$3" -ne "$2" ]; then
        fail "$1" "command: $5" "exit code $3, expected $2"
    elif [ -n "$4" ] && ! grep -qF -e "$4" "$TMP/out" "$TMP/err"; then
        fail "$1" "command: $5" "no such text: $4"
    elif [ "$2" -ne 0 ] && [ "$(grep -c '^calomu' "$TMP/err")" -eq 0 ]; then
        fail "$1" "command: $5" "no line on stderr that starts with calomu"
    else
        pass
    fi
}

# check WHAT CODE PATTERN COMMAND ARGUMENT...
check()
{
    cli_what=$1 cli_code=$2 cli_pattern=$3
    shift 3
    "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
    verdict "$cli_what" "$cli_code" $? "$cli_pattern" "$*"
}

# piped WHAT CODE PATTERN SHELL-TEXT: as check, for a pipeline or redirection
piped()
{
    (eval "$4") >"$TMP/out" 2>"$TMP/err" </dev/null
    verdict "$1" "$2" $? "$3" "$4"
}

# same WHAT FILE FILE: equal bytes
same()
{
    if cmp -s "$2" "$3"; then pass; else fail "$1" "differ: $2 $3"; fi
}

# absent WHAT PATH...: none of these exists
absent()
{
    cli_what=$1
    shift
    for cli_file in "$@"; do
        if [ -e "$cli_file" ]; then
            fail "$cli_what" "exists: $cli_file"
            return
        fi
    done
    pass
}

# holds WHAT FILE PATTERN: the file has this text
holds()
{
    if grep -qF -e "$3" "$2" 2>/dev/null; then pass; else fail "$1" "not in $2: $3"; fi
}

cli_end()
{
    echo "$CLI_NAME: $passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}
