stage         = "second"
instance_type = "t3.micro"
volume_size   = 2
user_data     = "#!/bin/sh\n: changed\n"
second_group  = true
