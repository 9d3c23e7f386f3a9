# Sourced: lets uv use what pip is configured for on this machine: index, extra indexes, find-links, certificates.
_pip_setting() {
    local variable=$1 key=$2
    printf '%s' "${!variable:-$(python3 -m pip config get "global.$key" 2>/dev/null || true)}" | tr -s ' \n' "$3" | sed "s/^$3//; s/$3\$//"
}
_index=$(_pip_setting PIP_INDEX_URL index-url ' ')
_extra=$(_pip_setting PIP_EXTRA_INDEX_URL extra-index-url ' ')
_links=$(_pip_setting PIP_FIND_LINKS find-links ',')
_cert=$(_pip_setting PIP_CERT cert ' ')
[ -z "$_index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$_index}"
[ -z "$_extra" ] || export UV_INDEX="${UV_INDEX:-$_extra}" UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
[ -z "$_links" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-$_links}"
[ -z "$_cert" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$_cert}"
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}"
unset _index _extra _links _cert
