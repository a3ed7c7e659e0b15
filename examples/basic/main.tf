# The stack with its own bucket, and an alarm for a job that stops writing.

provider "aws" {
  region = "us-east-1"
}

variable "ddg_api_key" {
  type      = string
  default   = null # destroy needs none
  sensitive = true
}

module "ddg_stats" {
  source = "../.." # from elsewhere: "git::https://...?ref=v2.0.0", with zip_folder

  name        = "my-stats"
  ddg_api_key = var.ddg_api_key
  ddg_site    = "datadoghq.com"
  alarm_email = "oncall@example.com"

  jobs = {
    nightly = { silent_after_hours = 26 }
  }
}

output "upload_command" {
  value = module.ddg_stats.upload_command
}
