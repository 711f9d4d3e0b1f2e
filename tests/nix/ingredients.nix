# What the images of the cases are made of, beside packages.
{ debnix, packages }:

let
  inherit (debnix) bash hello;
  inherit (packages) runCommand writeText writeTextDir;
in
{
  # Files with the users that a service and root have.
  nonRootShadowSetup = user: id: [
    (writeTextDir "etc/shadow" "root:!x:::::::\n${user}:!:::::::\n")
    (writeTextDir "etc/passwd" "root:x:0:0::/root:${bash}/bin/bash\n${user}:x:${id}:${id}::/home/${user}:\n")
    (writeTextDir "etc/group" "root:x:0:\n${user}:x:${id}:\n")
    (writeTextDir "etc/gshadow" "root:x::\n${user}:x::\n")
  ];

  # An archive with one empty layer, twice. `layers` are what its manifest calls them.
  repeated = layers: runCommand "repeated-layers.tar" { inherit layers; } ''
    mkdir image image/first image/second
    cd image
    head -c 10240 /dev/zero > layer
    id=$(sha256sum layer | cut -d ' ' -f 1)
    mv layer "$id.tar"
    ln -s "../$id.tar" first/layer.tar
    ln -s "../$id.tar" second/layer.tar
    set -- $(echo "$layers" | sed "s/ID/$id/g")
    echo '{"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:'"$id"'", "sha256:'"$id"'"]}}' > config.json
    echo '[{"Config": "config.json", "RepoTags": ["repeated:latest"], "Layers": ["'"$1"'", "'"$2"'"]}]' > manifest.json
    tar -c -f "$out" ./config.json ./first ./second "./$id.tar" ./manifest.json
  '';

  # For another machine: all that a program has to have to be recognised.
  crossHello = runCommand "hello-aarch64" { } ''
    mkdir -p "$out/bin"
    {
      printf '\177ELF\002\001\001\000\000\000\000\000\000\000\000\000'
      printf '\002\000\267\000\001\000\000\000'
      head -c 40 /dev/zero
    } > "$out/bin/hello"
    chmod 755 "$out/bin/hello"
  '';

  storeSymlink = runCommand "symlink" { target = writeTextDir "dir/target" "Content doesn't matter.\n"; } ''ln -s "$target" "$out"'';

  # Nothing else refers to it.
  linkedHello = runCommand "linked-hello" { inherit hello; } ''
    mkdir -p "$out/bin"
    ln -s "$hello/bin/hello" "$out/bin/linked-hello"
  '';

  nginxConf = writeText "nginx.conf" ''
    user nginx nginx;
    daemon off;
    error_log /dev/stdout info;
    pid /dev/null;
    events {}
    http {
      access_log /dev/stdout;
      client_body_temp_path /tmp/nginx/body;
      proxy_temp_path /tmp/nginx/proxy;
      fastcgi_temp_path /tmp/nginx/fastcgi;
      uwsgi_temp_path /tmp/nginx/uwsgi;
      scgi_temp_path /tmp/nginx/scgi;
      server {
        listen 80;
        index index.html;
        location / { root ${writeTextDir "index.html" "<h1>Hello from NGINX</h1>\n"}; }
      }
    }
  '';
}
