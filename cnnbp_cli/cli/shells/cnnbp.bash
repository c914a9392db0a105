# Completion of cnnbp for bash 4.4 or newer:  source <(cnnbp completion bash)

_cnnbp() {
    local line=${COMP_LINE:0:COMP_POINT} typed reply
    # Readline cuts words at = and :, so that what it has already of the word must leave the replies.
    typed=${line##*[[:space:]]}
    local cut=${typed%"$2"}
    [[ $cut == --*=* ]] && cut=${cut#*=}
    COMPREPLY=()
    while IFS=$'\t' read -r reply _; do
        [[ -n $reply ]] && COMPREPLY+=("${reply#"$cut"}")
    done < <(_CNNBP_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=$line "$1" 2>/dev/null)
    # A key or a folder that goes on is followed by no space.
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
    return 0
}

complete -o bashdefault -o default -F _cnnbp cnnbp
