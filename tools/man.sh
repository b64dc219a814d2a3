#!/bin/sh
# man.sh PROGRAM FOLDER - makes calomu.1, calomu.bash and _calomu (zsh) there from the help texts of
# the program, so that they cannot say anything else
set -eu
program=$1 to=$2
verbs=$("$program" help | awk '/^Verbs:/ { on = 1; next } on && /^  [a-z]/ { print $1 }
    /^  help/ { exit }')
words=$("$program" help | awk '/^  [a-z]/ { print $1 } /^    [a-z]/ { print $1 }')
# Text as it stands: backslashes, and dots and quotes that begin a line, are not commands of roff.
plain() { sed -e 's/\\/\\e/g; s/-/\\-/g; s/^\([.'"'"']\)/\\\&\1/'; }
{
    printf '.TH CALOMU 1 "" "%s" "User Commands"\n' \
        "$("$program" --version | awk '{ print $1, $2 }' | tr -d ',;')"
    printf '.SH NAME\ncalomu \\- the energy of multi\\-TeV muons from a fine calorimeter\n'
    printf '.SH SYNOPSIS\n.B calomu\n.I VERB\n[arguments]\n.SH DESCRIPTION\n.nf\n'
    "$program" help | tail -n +3 | plain
    printf '.fi\n'
    for verb in $verbs; do
        [ "$verb" != help ] || continue
        printf '.SH "CALOMU %s"\n.nf\n' "$(printf %s "$verb" | tr a-z A-Z)"
        "$program" "$verb" --help | plain
        printf '.fi\n'
    done
} >"$to/calomu.1"

options() { "$program" "$1" --help | awk '/^  --[a-z]/ { print $1 }' | tr '\n' ' '; }
choices() { "$program" "$1" --help | awk '/^  --/ && $2 ~ /^[a-z0-9]+(\|[a-z0-9]+)+$/ {
    gsub(/\|/, " ", $2); print $1 "=" $2 }'; }
{
    echo "# bash completion of calomu, made of its help texts"
    echo '_calomu()'
    echo '{'
    echo '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words='
    echo '    COMPREPLY=()'
    echo '    if [ "$COMP_CWORD" -eq 1 ]; then'
    echo "        words='$(echo $verbs) --version'"
    echo '    else'
    echo '        case ${COMP_WORDS[1]}:$before in'
    for verb in $verbs; do
        [ "$verb" != help ] || continue
        choices "$verb" | while IFS='=' read -r option list; do
            echo "        $verb:$option) words='$list' ;;"
        done
    done
    echo "        help:*) words='$(echo $words)' ;;"
    echo '        esac'
    echo '        if [ -z "$words" ] && [ "${word#-}" != "$word" ]; then'
    echo '            case ${COMP_WORDS[1]} in'
    for verb in $verbs; do
        [ "$verb" = help ] || echo "            $verb) words='$(options "$verb")' ;;"
    done
    echo '            esac'
    echo '        fi'
    echo '    fi'
    echo '    [ -z "$words" ] || COMPREPLY=($(compgen -W "$words" -- "$word"))'
    echo '}'
    echo 'complete -o default -F _calomu calomu'
} >"$to/calomu.bash"
{
    echo '#compdef calomu'
    echo '# zsh completion of calomu, made of its help texts'
    echo 'local -a words'
    echo 'if (( CURRENT == 2 )); then'
    echo "    words=($(echo $verbs) --version)"
    echo '    compadd -a words'
    echo 'elif [[ $words[2] == help ]]; then'
    echo "    compadd $(echo $words)"
    echo 'elif [[ $PREFIX == -* ]]; then'
    echo '    case $words[2] in'
    for verb in $verbs; do
        [ "$verb" = help ] || echo "    $verb) compadd -- $(options "$verb") ;;"
    done
    echo '    esac'
    echo 'else'
    echo '    _files'
    echo 'fi'
} | sed '/^local -a words$/d; s/^    words=(\(.*\))$/    compadd -- \1/; /compadd -a words/d' \
    >"$to/_calomu"
