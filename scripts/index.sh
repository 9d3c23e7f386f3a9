# Sourced: lets uv use the package index that pip is configured for on this machine (index, extra indexes, find-links).
_pip_setting() {
    local variable=$1 key=$2
    printf '%s' "${!variable:-$(python3 -m pip config get "global.$key" 2>/dev/null || true)}"
}
_index=$(_pip_setting PIP_INDEX_URL index-url)
_links=$(_pip_setting PIP_FIND_LINKS find-links)
[ -z "$_index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$_index}"
[ -z "$_links" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-$(tr -s ' \n' ',' <<<"$_links" | sed 's/^,//; s/,$//')}"
unset _index _links
