#compdef cnnbp
# Completion of cnnbp for zsh, after compinit:  source <(cnnbp completion zsh)

_cnnbp() {
    local -a goes_on ends
    local reply item
    local typed="${(j: :)words[1,CURRENT-1]} $PREFIX"
    [[ $PREFIX == --*=* ]] && compset -P 1 '*='
    while IFS=$'\t' read -r reply item; do
        [[ -z $reply ]] && continue
        item="${reply//:/\\:}${item:+:$item}"
        if [[ $reply == *[=./] ]]; then goes_on+=("$item"); else ends+=("$item"); fi
    done < <(_CNNBP_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS="$typed" ${~words[1]} 2>/dev/null)
    if (( $#goes_on + $#ends )); then
        # A key or a folder that goes on is followed by no space.
        _describe -V cnnbp ends -- goes_on -S ''
    else
        compset -P '*='
        _files
    fi
}

if [[ $funcstack[1] == _cnnbp ]]; then
    _cnnbp "$@"
else
    compdef _cnnbp cnnbp
fi
