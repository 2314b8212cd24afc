# Sourced: Debian packages for the virtual machine, from the mirror that this machine uses already, unpacked under $lab_cache.
# Nothing is installed and none of the system's files is changed: apt gets sources, lists and a cache of its own. Signatures are
# checked with the keys of the Debian archive.
#   needs $lab_cache: a directory

lab_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

lab_fail() {
    echo "lab: $*" >&2
    exit 1
}

# The mirror of the running system's own suite.
lab_mirror() {
    local codename site
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    site=$(apt-get indextargets --format '$(RELEASE) $(SITE)' 'Created-By: Packages' |
        awk -v suite="$codename" '$1 == suite { print $2; exit }')
    [[ -n $site ]] || lab_fail "apt's sources name no mirror of Debian $codename"
    echo "$site"
}

# lab_apt_for NAME SUITE…: makes a private apt called NAME, which knows these suites, and fetches their lists.
lab_apt_for() {
    local directory=$lab_cache/apt/$1 mirror suite
    shift
    [[ -r $lab_keyring ]] || lab_fail "$lab_keyring is missing: install debian-archive-keyring"
    mirror=$(lab_mirror)
    mkdir -p "$directory"/{lists,cache/archives}/partial
    : >"$directory/status"
    # Read after the system's own configuration, which may hold a proxy; what that does after an update is not ours to do.
    cat >"$directory/apt.conf" <<CONF
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
APT::Sandbox::User "root";
Acquire::Languages "none";
Debug::NoLocking "true";
Dir::Etc::sourcelist "$directory/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$directory/lists";
Dir::State::extended_states "$directory/extended_states";
Dir::Cache "$directory/cache";
CONF
    for suite in "$@"; do
        echo "deb [signed-by=$lab_keyring] $mirror $suite main"
    done >"$directory/sources.list"
    apt-get -c "$directory/apt.conf" update -qq >"$directory/log" 2>&1 || {
        cat "$directory/log" >&2
        lab_fail "apt cannot read the lists of $*"
    }
}

# lab_unpack NAME PACKAGE TO: unpacks one package, without what it depends on.
lab_unpack() {
    local directory=$lab_cache/apt/$1 draft
    draft=$(mktemp -d "$lab_cache/draft.XXXXXX")
    (cd "$draft" && apt-get -c "$directory/apt.conf" download -qq "$2" >log 2>&1) || {
        cat "$draft/log" >&2
        lab_fail "cannot download $2"
    }
    mkdir -p "$3"
    dpkg -x "$draft"/*.deb "$3"
    rm -rf "$draft"
}

# lab_unpack_all NAME SUITE PACKAGE TO: unpacks a package of the suite and whatever it depends on that this system lacks.
lab_unpack_all() {
    local directory=$lab_cache/apt/$1 deb
    apt-get -c "$directory/apt.conf" install -qq -y --no-install-recommends --download-only -t "$2" "$3" \
        >"$directory/log" 2>&1 || {
        cat "$directory/log" >&2
        lab_fail "cannot download $3 of $2"
    }
    mkdir -p "$4"
    for deb in "$directory"/cache/archives/*.deb; do
        dpkg -x "$deb" "$4"
        rm "$deb"
    done
}
