# Completion of cnnbp for fish:  cnnbp completion fish | source

function __cnnbp_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -l option (string match -r -- '^--[^=]+=' $typed)
    set -l replies (env _CNNBP_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
        _TYPER_COMPLETE_ARGS=(commandline -cp | string collect) $words[1] 2>/dev/null | string match -rv '^$')
    if test (count $replies) -gt 0
        string replace -r -- '^' "$option" $replies
    else
        __fish_complete_path $typed
    end
end

complete --command cnnbp --no-files --arguments '(__cnnbp_complete)'
