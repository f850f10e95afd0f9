#!/bin/bash
# Runs a command on "alpha", one of two machines that share nothing but the files: namespaces with a
# network, a name, processes and a /dev/shm of their own, joined by a virtual cable. FOLDER/agent
# stands in for ssh to the other one, "beta". All of it ends with this script, which has to be in:
#   unshare --user --map-root-user --net --mount --uts --pid --fork --kill-child --mount-proc
# Usage: two_hosts.sh FOLDER COMMAND...
set -e
folder=$1
shift
own="--net --uts --mount --pid"
unshare $own --fork --kill-child --mount-proc sleep infinity &
for _ in $(seq 250); do
  beta=$(cat "/proc/$!/task/$!/children") && beta=${beta%% *}
  [ -n "$beta" ] && [ "$(cat "/proc/$beta/comm")" = sleep ] && break
  sleep 0.02
done
on_beta() { nsenter --target "$beta" $own -- "$@"; }

ip link add cable type veth peer name cable netns "$beta"
setting='hostname $0; mount -t tmpfs -o size=$2 tmpfs /dev/shm; ip link set lo up; ip addr add $1/24 dev cable; ip link set cable up'
sh -c "$setting" alpha 10.77.0.1 "${MEMORY:-64m}"
on_beta sh -c "$setting" beta 10.77.0.2 64m

mkdir "$folder/alpha" "$folder/beta"  # mpirun's files, whose names are made of process numbers
export TMPDIR=$folder/alpha
cat > "$folder/agent" <<END
#!/bin/bash
while [[ \$1 == -* ]]; do shift; done  # options of ssh
shift  # the host's name: there is one
exec nsenter --target $beta $own -- env -i HOME=/ PATH=/usr/bin:/bin TMPDIR=$folder/beta sh -c "cd; \$*"
END
chmod +x "$folder/agent"
export PRTE_MCA_plm_ssh_agent=$folder/agent OMPI_MCA_plm_rsh_agent=$folder/agent
export HYDRA_LAUNCHER=ssh HYDRA_LAUNCHER_EXEC=$folder/agent

code=0
"$@" || code=$?
on_beta sh -c 'echo "left on beta: $(ls -d /dev/shm/pyframe-* 2> /dev/null | wc -l)"'
exit $code
