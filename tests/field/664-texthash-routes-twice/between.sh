echo 'direct.example smtp:[direct.example]:25' >> $CFG/transport
