/* accelctl/commands.h - the commands, one function each: argv[0] is the command's own name, the
 * rest its options and arguments.  The exit status is returned; data goes to stdout, everything
 * else to stderr. */
#ifndef ACCELCTL_COMMANDS_H
#define ACCELCTL_COMMANDS_H

int cmd_task(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_layer(int argc, char **argv);
int layer_merge_main(int argc, char **argv); /* of cmd_layer */
int cmd_config(int argc, char **argv);
int cmd_health(int argc, char **argv);
int cmd_rules(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
