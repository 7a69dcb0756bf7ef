postconf -c $CFG -e multi_instance_wrapper='$command_directory/postmulti -p --' multi_instance_enable=yes multi_instance_directories=$CFG2
