# Installs what the tests and the demo need on a Debian 12; to be sourced.
#
# Only what is missing is installed, and nothing that runs is restarted.
# shellcheck shell=bash disable=SC2154

# packages_of TOOL: the commands of a tool, and the packages that have them.
packages_of() {
  case $1 in
    base) echo 'jq:jq python3:python3 zstd:zstd xz:xz-utils setpriv:util-linux xargs:findutils awk:mawk tar:tar pgrep:procps systemd-analyze:systemd' ;;
    rust) echo 'cc:gcc' ;;
    docker) docker info > /dev/null 2>&1 || echo 'dockerd:docker.io docker:docker.io' ;;
    nix) ;;
    *) echo "$1:$1" ;;
  esac
}

install_missing() {
  local tool entry missing=()
  for tool in base "$@"; do
    for entry in $(packages_of "$tool"); do
      command -v "${entry%%:*}" > /dev/null || missing+=("${entry##*:}")
    done
  done
  command -v cc > /dev/null || missing+=(libc6-dev)
  if [ "${#missing[@]}" -gt 0 ]; then
    echo "Installing ${missing[*]}"
    apt-get update --quiet
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends --no-upgrade "${missing[@]}"
  fi
  # Without these settings Nix looks for debnix's packages on the network.
  if ! command -v nix-build > /dev/null || ! grep -q '^ *substituters *=' /etc/nix/nix.conf; then
    echo 'Installing Nix'
    DEBIAN_FRONTEND=noninteractive "$debnix/setup"
  fi
  builders
}

# builders: the users that root's Nix builds as.  The package makes them, but a
# machine made from an image of another may know their group only.
builders() {
  local group members user
  group=$(getent group nixbld) || return 0
  IFS=, read -ra members <<< "${group##*:}"
  for user in "${members[@]}"; do
    getent passwd "$user" > /dev/null ||
      useradd --system --gid nixbld --groups nixbld --no-create-home --home-dir /var/empty --shell /usr/sbin/nologin "$user"
  done
}

# install_fuzz: libFuzzer is in a crate, but is C++.
install_fuzz() {
  command -v c++ > /dev/null || DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends g++
  command -v cargo-fuzz > /dev/null || cargo install cargo-fuzz --locked --version 0.13.2
}

# Where servers of S3 are kept, which take minutes to build.
tools=${STOWAGE_TOOLS:-/var/cache/stowage-tools}

# install_s3: s3s-fs keeps buckets in a folder.
install_s3() { install_tool s3s-fs 0.14.1 --features binary; }

# install_garage: a store that several machines share.
install_garage() { install_tool garage 2.5.0 --no-default-features --features bundled-libs,sqlite; }

# install_tool NAME VERSION OPTION...: a crate's program, in $tools.
install_tool() {
  local version
  version=$("$tools/bin/$1" --version 2> /dev/null || true)
  [[ $version != *"$2"* ]] || return 0
  # In /, as here all is linked statically.
  (cd / && cargo install "$1" --version "$2" --locked --debug --root "$tools" "${@:3}")
}
