postconf -c $CFG -e "alternate_config_directories = $CFG2"
