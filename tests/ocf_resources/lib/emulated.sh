# Emulates an OCF resource by a file: it runs where its state file exists. Sourced by the scripts
# under resource.d, which set:
#   kind       short name of the agent, part of the file names
#   parameter  the one required OCF parameter
#   name       its value
# and then call `emulate "$@"`. Needs no other program but `date`, `rm` and (for faults) `sleep`, so
# that a test can run many of them on a slow machine.
#
# Environment:
#   HALO_TEST_DIRECTORY  the folder of the test
#   HALO_TEST_ID         the host this runs on, as far as the test is concerned
#   HALO_TEST_LOG        where actions are logged (default $HALO_TEST_DIRECTORY/test_log)
#
# Files in the test directory ($name with every / as _):
#   $HALO_TEST_ID.$kind.$name           the state file: exists while the resource runs
#   $HALO_TEST_ID.starting.$kind.$name  holds the PID of a start that is in progress
#   fault.$HALO_TEST_ID.$kind.$name     faults on this host
#   fault.$kind.$name                   faults on every host
#
# Faults, one a line (a first word of `once` removes the file when it strikes):
#   start-fail, stop-fail         the action does nothing and exits 1
#   monitor-error N               the monitor exits N
#   start-hang, stop-hang, monitor-hang   the action does nothing and never ends
#   validate-error N, validate-hang       the same of validate-all
#   start-slow S, stop-slow S, monitor-slow S   the action takes S seconds longer
#
# Log, one line (and one write) each, in the order in which things happened:
#   TIME TEST_ID KIND NAME ACTION BEGIN others=...
#   TIME TEST_ID KIND NAME ACTION END CODE
# TIME is seconds since the epoch with nanoseconds. `others` names the hosts where the same resource
# runs, or is being started, at that moment: not empty at a start of an exclusive resource is the
# proof of a double start. A monitor logs its END alone, and its TIME is `up` and the seconds since
# the boot: hundreds run in a test, and `date` would take twice the time of all the rest.

say() {
	case $* in
	monitor\ END*) read -r at _ </proc/uptime && at=up$at ;;
	*) at=$(date +%s.%N) ;;
	esac
	printf '%s %s %s %s %s\n' "$at" "$HALO_TEST_ID" "$kind" "$safe_name" "$*" >>"$HALO_TEST_LOG"
}

fail() { # code, message
	printf '%s %s: %s\n' "$kind" "$name" "$2" >&2
	exit "$1"
}

check_parameters() {
	if [ -z "$HALO_TEST_DIRECTORY" ] || ! [ -d "$HALO_TEST_DIRECTORY" ]; then
		fail 5 "HALO_TEST_DIRECTORY '$HALO_TEST_DIRECTORY' is not a folder"
	fi
	[ -n "$HALO_TEST_ID" ] || fail 5 'HALO_TEST_ID is not set'
	[ -n "$name" ] || fail 6 "the parameter $parameter is missing"
	case $name in
	*[!A-Za-z0-9._/:@-]*) fail 6 "the parameter $parameter holds characters that are not allowed" ;;
	esac
	safe_name=
	rest=$name
	while :; do
		case $rest in
		*/*) safe_name=$safe_name${rest%%/*}_ rest=${rest#*/} ;;
		*) break ;;
		esac
	done
	safe_name=$safe_name$rest
	HALO_TEST_LOG=${HALO_TEST_LOG:-$HALO_TEST_DIRECTORY/test_log}
	state=$HALO_TEST_DIRECTORY/$HALO_TEST_ID.$kind.$safe_name
	starting=$HALO_TEST_DIRECTORY/$HALO_TEST_ID.starting.$kind.$safe_name
}

# Whether the script that wrote its PID to file $1 still runs: a start that was killed counts no more.
is_alive() {
	pid=
	read -r pid 2>/dev/null <"$1" && read -r _ _ process_state _ 2>/dev/null <"/proc/$pid/stat" &&
		[ "$process_state" != Z ]
}

# Sets `others` to the hosts that have the resource, or are starting it.
find_others() {
	others=
	for file in "$HALO_TEST_DIRECTORY"/*."$kind.$safe_name"; do
		[ -e "$file" ] || continue
		host=${file##*/}
		host=${host%."$kind.$safe_name"}
		case $host in
		*.starting)
			is_alive "$file" || continue
			host=${host%.starting}
			;;
		esac
		case $host in
		"$HALO_TEST_ID" | fault | fault.*) ;;
		*) others=$others${others:+,}$host ;;
		esac
	done
}

# Lets the faults ordered for action $1 strike.
strike() {
	for file in "$HALO_TEST_DIRECTORY/fault.$HALO_TEST_ID.$kind.$safe_name" \
		"$HALO_TEST_DIRECTORY/fault.$kind.$safe_name"; do
		[ -e "$file" ] || continue
		while read -r word argument rest; do
			if [ "$word" = once ]; then
				case $argument in "$1"-*) rm -f "$file" ;; esac
				word=$argument argument=$rest
			fi
			case $word in
			"$1-fail") finish "$1" 1 'fails as ordered' ;;
			"$1-error") finish "$1" "${argument:-1}" 'fails as ordered' ;;
			"$1-slow") sleep "${argument:-1}" ;;
			"$1-hang")
				say "$1" HANG
				while :; do sleep 3600; done
				;;
			esac
		done <"$file"
	done
}

finish() { # action, code, message
	if [ "$1" = start ]; then rm -f "$starting"; fi
	say "$1" END "$2"
	[ -z "$3" ] || fail "$2" "$3"
	exit "$2"
}

start() {
	echo $$ >"$starting" || fail 1 'the test directory cannot be written'
	find_others
	say start BEGIN "others=$others"
	strike start
	: >"$state" || finish start 1 'the state file cannot be written'
	finish start 0
}

stop() {
	find_others
	say stop BEGIN "others=$others"
	strike stop
	rm -f "$state" || finish stop 1 'the state file cannot be removed'
	finish stop 0
}

monitor() {
	strike monitor
	if [ -e "$state" ]; then finish monitor 0; fi
	finish monitor 7
}

validate() {
	strike validate
	exit 0
}

meta_data() {
	cat <<END
<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="${0##*/}" version="1.0">
<version>1.0</version>
<longdesc lang="en">Emulates a resource of the test environment by a state file.</longdesc>
<shortdesc lang="en">emulated resource</shortdesc>
<parameters>
<parameter name="$parameter" unique="1" required="1">
<longdesc lang="en">What is emulated.</longdesc>
<shortdesc lang="en">$parameter</shortdesc>
<content type="string"/>
</parameter>
</parameters>
<actions>
<action name="start" timeout="30s"/>
<action name="stop" timeout="30s"/>
<action name="monitor" timeout="10s" interval="10s" depth="0"/>
<action name="meta-data" timeout="5s"/>
<action name="validate-all" timeout="5s"/>
</actions>
</resource-agent>
END
}

emulate() {
	case $1 in
	meta-data)
		meta_data
		exit 0
		;;
	start | stop | monitor) check_parameters && "$1" ;;
	status) check_parameters && monitor ;;
	validate-all) check_parameters && validate ;;
	*)
		printf 'usage: %s start|stop|monitor|status|meta-data|validate-all\n' "$0" >&2
		exit 3
		;;
	esac
}
