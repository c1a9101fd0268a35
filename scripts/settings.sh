# Shared by the scripts in train/ and eval/: settings, which are environment variables, and command lines.

fail() {
  echo "error: $*" >&2
  exit 2
}

# uses NAME...: this script uses these settings. Refuses unknown ones of the family; names those that do nothing here.
uses() {
  python3 "$(dirname "$0")/../settings.py" "$(basename "$0")" "$@" || exit $?
}

# alias_of NAME THEIRS: the setting NAME has the name THEIRS in the reference
alias_of() {
  ours='' theirs=''
  eval "ours=\${$1:-} theirs=\${$2:-}"
  if [ -z "$theirs" ]; then return; fi
  if [ -n "$ours" ] && [ "$ours" != "$theirs" ]; then
    fail "$1 is '$ours', and $2, the reference's name of it, is '$theirs'; set one of them."
  fi
  eval "$1=\$theirs"
}

# choose NAME DEFAULT OTHER...: the setting NAME is DEFAULT if unset, and must be one of these
choose() {
  name=$1 value=''; shift
  eval "value=\${$name:-$1}"
  for known in "$@"; do
    if [ "$value" = "$known" ]; then eval "$name=\$value"; return; fi
  done
  fail "$name is '$value'; choose one of $(echo "$*" | sed 's/ /, /g')."
}

# numbers NAME...: these settings are numbers, if they are set
numbers() {
  for name in "$@"; do
    eval "value=\${$name:-0}"
    case $value in
      *[!0-9.e-]* | . | *.*.*) fail "$name is '$value'; it must be a number." ;;
    esac
  done
}

# upper WORD: a TOKENIZER in capitals, as in names of settings
upper() {
  case $1 in *[!a-z0-9]*) fail "TOKENIZER is '$1'; choose one of vq, lfq, ibq." ;; esac
  printf '%s' "$1" | tr '[:lower:]' '[:upper:]'
}

# found_gpus: the GPUs of this machine
found_gpus() {
  nvidia-smi -L 2>/dev/null | wc -l
}

# quoted WORD...: these words as one line, quoted for a shell
quoted() {
  line=
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,+-]*) word="'$(printf '%s' "$word" | sed "s/'/'\\\\''/g")'" ;;
    esac
    line="$line $word"
  done
  echo "${line# }"
}
